# syntax=docker/dockerfile:1

# The binary is built on the machine's own platform, for whichever is asked for.
ARG GO_VERSION=1.26.8
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOTOOLCHAIN=local \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/penstock ./cmd/penstock

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/penstock /penstock
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# 8080 takes API requests, 9090 is the admin listener.
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/penstock", "healthcheck"]
ENTRYPOINT ["/penstock"]
CMD ["serve", "--config", "/etc/penstock/penstock.yaml"]
