#!/bin/sh
# Checks the Prometheus configuration, the alerts and their unit tests, and the
# queries of the dashboards, with promtool. Where promtool is missing, it is taken
# from the Debian package prometheus and kept under .cache; the package is not
# installed. Fails when promtool cannot be had.
set -eu
cd "$(dirname "$0")"

fetch_promtool() {
	command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
		echo "check.sh: promtool is missing, and so is apt-get; install Prometheus and put promtool into PATH" >&2
		exit 1
	}
	echo "check.sh: fetching promtool" >&2
	mkdir -p "$cache"
	(
		cd "$cache"
		rm -f prometheus_*.deb
		# Lists that are out of date name packages that are gone.
		apt-get download prometheus >&2 || { apt-get update >&2 && apt-get download prometheus >&2; }
		dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
		rm -f prometheus_*.deb
	)
}

cache=$(cd .. && pwd)/.cache/prometheus
promtool=$(command -v promtool || echo "$cache/usr/bin/promtool")
[ -x "$promtool" ] || fetch_promtool
"$promtool" --version | head -n 1

"$promtool" check config prometheus/prometheus.yml
"$promtool" check rules prometheus/alerts.yml
"$promtool" test rules prometheus/alerts_test.yml

# promtool reads queries only in rules, so each becomes one. A JSON string is also a
# YAML string; an expr stands on a line of its own.
rules=$(mktemp)
trap 'rm -f "$rules"' EXIT
for dashboard in grafana/dashboards/*.json; do
	{
		echo 'groups:'
		echo '  - name: dashboard'
		echo '    rules:'
		sed -n 's/^ *"expr": \(".*"\),*$/      - {record: "dashboard:query", expr: \1}/p' "$dashboard"
	} | sed 's/\$__rate_interval/5m/g' >"$rules"
	queries=$(grep -c '"expr"' "$dashboard")
	[ "$(grep -c 'dashboard:query' "$rules")" -eq "$queries" ] || {
		echo "check.sh: $dashboard: some expr does not stand on a line of its own; format it with: jq . $dashboard" >&2
		exit 1
	}
	"$promtool" check rules --lint=none "$rules" >/dev/null
	echo "$dashboard: $queries queries"
done
