#!/bin/sh
# Builds the last stage of the Dockerfile, with a binary built here instead of in a
# container, and tries the image: its user, its certificates, that it starts on a
# configuration and that its health check answers. Needs root and Debian's buildah;
# no registry is asked.
set -eu
cd "$(dirname "$0")/.."
scripts/need buildah=buildah

work=$(mktemp -d)
container=
penstock=
cleanup() {
	[ -z "$penstock" ] || { kill "$penstock" && wait "$penstock"; } || true
	[ -z "$container" ] || buildah --storage-driver vfs rm "$container" >/dev/null
	buildah --storage-driver vfs rmi penstock-check >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap cleanup EXIT

CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=check' -o "$work/penstock" ./cmd/penstock
cp /etc/ssl/certs/ca-certificates.crt "$work/"
{
	echo 'FROM scratch AS build'
	echo 'COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt'
	echo 'COPY penstock /out/penstock'
	sed -n '/^FROM scratch/,$p' Dockerfile
} >"$work/Dockerfile"
buildah --storage-driver vfs bud --isolation chroot --format docker --quiet -t penstock-check "$work" >/dev/null

config=$(buildah --storage-driver vfs inspect --type image --format \
	'{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}} {{.Docker.Config.Healthcheck.Test}}' penstock-check)
want='65532:65532 [/penstock] [serve --config /etc/penstock/penstock.yaml] [CMD /penstock healthcheck]'
[ "$config" = "$want" ] || { echo "image.sh: the image is configured as $config, want $want" >&2; exit 1; }

container=$(buildah --storage-driver vfs from penstock-check)
root=$(buildah --storage-driver vfs mount "$container")
[ -s "$root/etc/ssl/certs/ca-certificates.crt" ] || { echo 'image.sh: the image has no certificates' >&2; exit 1; }
mkdir -p "$root/etc/penstock"
# A port of 127.0.0.1 that nobody uses, below those of outgoing connections.
free_port() {
	while :; do
		port=$(shuf -i 10000-30000 -n 1)
		grep -qi "$(printf ':%04X ' "$port")" /proc/net/tcp /proc/net/tcp6 2>/dev/null || break
	done
	echo "$port"
}
admin=127.0.0.1:$(free_port)
printf 'listen: 127.0.0.1:%s\nadmin: {listen: "%s"}\nupstreams: {up: {base_url: "http://127.0.0.1:9/v1"}}\n' \
	"$(free_port)" "$admin" >"$root/etc/penstock/penstock.yaml"

# As the image says: its user, its command, nothing else there.
inside() { chroot --userspec=65532:65532 "$root" /penstock "$@"; }
[ "$(inside version)" = 'penstock check' ] || { echo 'image.sh: the binary does not run' >&2; exit 1; }
# Here the usual port may be taken.
inside healthcheck --help | grep -qF http://127.0.0.1:9090/healthz || { echo 'image.sh: by itself the health check does not ask the usual admin listener' >&2; exit 1; }
healthy() { inside healthcheck --url "http://$admin/healthz" 2>/dev/null; }
if healthy; then echo 'image.sh: the health check answers before the start' >&2; exit 1; fi
chroot --userspec=65532:65532 "$root" /penstock serve --config /etc/penstock/penstock.yaml 2>"$work/log" &
penstock=$!
for _ in $(seq 300); do
	if healthy; then
		du -h "$root/penstock" | sed 's/\t.*/ of binary; the image starts and its health check answers/'
		exit 0
	fi
	sleep 0.1
done
cat "$work/log" >&2
echo 'image.sh: the health check does not answer' >&2
exit 1
