# The bot's images, built from the root of the repository; pipelines have their own in pipelines/Dockerfile.
#   make images                  all of them, on the base image of deploy/bases.env, with a bill of materials beside each
#   docker build -t nomads .     the bot's, on whatever the base image's tag names today
#   docker build --build-arg "$(grep ^PYTHON_IMAGE= deploy/bases.env)" -t nomads .     on the one that is pinned there
#   docker run --env-file .env -v nomads-data:/data nomads
# `--target local` has the pipelines' packages too, for programs that run in the bot's container: see compose.yaml.
# Packages come from where pip's own settings say; `make images` hands over those of the machine as the secret `pip`.

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# The steps until the programs' packages are those of pipelines/Dockerfile too, so that a cache has them once.
# SOURCE_DATE_EPOCH and PYTHONHASHSEED: or a compiled module would hold its time, a user the day of its making, and sets
# an order of chance, and no two builds would be the same to the byte.
FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
RUN SOURCE_DATE_EPOCH=0 useradd --uid 10001 --create-home nomads && python3 -m venv --without-pip /opt/venv

FROM base AS sources
WORKDIR /srv/nomads
COPY bot bot
COPY handlers handlers
# shared with the programs
COPY contract contract
COPY volumes volumes
# the catalogue: what a pipeline is called, what it needs, where its image is; and the programs themselves
COPY pipelines pipelines
RUN SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 python3 -m compileall -q .

FROM base AS programs
COPY requirements/pipelines.txt /opt/requirements/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    PIP_CONFIG_FILE=/run/secrets/pip SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 \
    pip --python /opt/venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /opt/requirements/pipelines.txt

FROM programs AS local
COPY requirements/bot.txt /opt/requirements/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    PIP_CONFIG_FILE=/run/secrets/pip SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 \
    pip --python /opt/venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /opt/requirements/bot.txt
ENV NOMADS_DATA=/data \
    NOMADS_LOCAL_USER=20000
RUN install -d -o nomads -m 700 /data
WORKDIR /srv/nomads
COPY --from=sources /srv/nomads /srv/nomads
USER 10001
VOLUME /data
ENTRYPOINT ["python3", "-m", "bot"]
CMD ["run"]

FROM base AS bot
COPY requirements/bot.txt /opt/requirements/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    PIP_CONFIG_FILE=/run/secrets/pip SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 \
    pip --python /opt/venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /opt/requirements/bot.txt
ENV NOMADS_DATA=/data \
    NOMADS_LOCAL_USER=20000
RUN install -d -o nomads -m 700 /data
WORKDIR /srv/nomads
COPY --from=sources /srv/nomads /srv/nomads
USER 10001
VOLUME /data
ENTRYPOINT ["python3", "-m", "bot"]
CMD ["run"]
