# The service as `make wheel install-runtime` installs it; `make check-image` runs the same steps, the same
# command and the same health check outside of a container.
FROM python:3.11-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make wheel install-runtime PYTHON=python3 PREFIX=/opt/itb

FROM python:3.11-slim
COPY --from=build /opt/itb /opt/itb
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/itb itb
USER itb
WORKDIR /var/lib/itb
VOLUME /var/lib/itb
ENV ITB_DATABASE_URL=sqlite:////var/lib/itb/itb.db \
    PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["/opt/itb/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["/opt/itb/bin/itb", "serve", "--host", "0.0.0.0", "--port", "8080"]
