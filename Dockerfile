# The image of pgpact. `make image` builds it; it needs a registry for its two base images. Plain instructions only, so that the classic
# builder takes it too.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${GO_IMAGE} AS build
WORKDIR /src
# Modules first: this layer is kept until go.mod changes.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unreleased
ARG COMMIT=unknown
# The parser is Postgres's own C. It is linked in statically, with Go's own resolver and user lookup, so that the program runs on whatever C
# library the base image brings.
RUN CGO_ENABLED=1 go build -buildvcs=false -trimpath -tags netgo,osusergo \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT} -linkmode external -extldflags -static" \
    -o /out/pgpact ./cmd/pgpact

# Debian's slim image and not an empty one, because health checks want a shell (bash's /dev/tcp) and people who debug do too.
FROM ${BASE_IMAGE}
COPY --from=build /out/pgpact /usr/local/bin/pgpact
# A number, not a name: Kubernetes can only check runAsNonRoot then.
USER 10001:10001
EXPOSE 6432 6480
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgpact"]
CMD ["serve", "--config", "/etc/pgpact/pgpact.yaml"]
