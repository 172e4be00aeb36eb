# syntax=docker/dockerfile:1
# The server in a small image: `docker build -t billstream .`; docs/install.md says how it is run.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY build/install-deps.sh build/
RUN build/install-deps.sh
COPY . .
# The caches keep the C core, which takes minutes, from one build to the next. They are no part of a layer, so that
# what is wanted of them is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    make build && make install DESTDIR=/image PREFIX=/usr && strip /image/usr/bin/billstream
RUN mkdir /image/data

FROM debian:bookworm-slim
COPY --from=build /image/usr/bin/billstream /usr/bin/billstream
# A number, so that Kubernetes sees that it is not root (runAsNonRoot).
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
VOLUME /data
WORKDIR /data
ENV BILLSTREAM_DB=/data/billstream.db BILLSTREAM_LISTEN=0.0.0.0:50051
EXPOSE 50051
# It calls what BILLSTREAM_ADDR says: 127.0.0.1:50051 when nothing is said.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["billstream", "summary", "--retry-for-secs", "0"]
ENTRYPOINT ["billstream"]
CMD ["serve"]
