# The image of a node with a shell, for the load.
ARG ONCEKEY=oncekey
FROM ${ONCEKEY}
COPY busybox /bin/busybox
COPY load.sh /usr/bin/load.sh
ENV PATH=/usr/bin:/bin
HEALTHCHECK NONE
ENTRYPOINT ["/bin/busybox", "sh", "/usr/bin/load.sh"]
CMD []
