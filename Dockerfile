# The static binary that `scripts/release` leaves in target/release-files/image, and nothing else:
#   scripts/release && docker build -t megatorrent target/release-files/image
FROM scratch
COPY megatorrent /megatorrent
# A volume that is mounted here begins as this folder, and so belongs to the user.
COPY --chown=65532:65532 --chmod=0700 packaging/docker/data /data
USER 65532:65532
WORKDIR /data
ENV MEGATORRENT_DATA=/data/node
ENV MEGATORRENT_P2P_PORT=6881
ENV XDG_CONFIG_HOME=/data/config
VOLUME /data
EXPOSE 6881/tcp
EXPOSE 6881/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/megatorrent", "healthz"]
ENTRYPOINT ["/megatorrent"]
CMD ["serve"]
