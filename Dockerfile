# The bot's image, built from the root of the repository; pipelines have their own in pipelines/Dockerfile.
#   docker build -t nomads .
#   docker run --env-file .env -v nomads-data:/data nomads
# The pipelines' packages are not in here: set NOMADS_COMPUTE=aws. In an image of your own that has them, programs run
# as another user than the bot, for which the bot starts as root (docker run --user 0).

FROM python:3.11.14-slim-bookworm AS packages
RUN python3 -m venv /opt/venv
COPY requirements/bot.txt /tmp/bot.txt
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/bot.txt

FROM python:3.11.14-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NOMADS_DATA=/data \
    NOMADS_LOCAL_USER=20000
RUN useradd --uid 10001 --create-home nomads && install -d -o nomads -m 700 /data
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/nomads
COPY bot bot
COPY handlers handlers
# shared with the programs
COPY contract contract
COPY volumes volumes
# the catalogue alone: what a pipeline is called, what it needs, where its image is
COPY pipelines pipelines
USER 10001
VOLUME /data
ENTRYPOINT ["python3", "-m", "bot"]
CMD ["run"]
