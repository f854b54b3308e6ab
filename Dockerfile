# One image for `login-relay api` and `login-relay worker`, with what traces need.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements/otel.txt requirements/build.txt requirements/
# Two environments: the application's holds neither pip nor what builds the wheel.
RUN python -m venv --without-pip /opt/login-relay \
 && python -m pip --python /opt/login-relay/bin/python install --no-cache-dir --require-hashes -r requirements/otel.txt \
 && python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/build/bin/python install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml LICENSE ./
COPY runtime runtime
COPY events events
COPY projects projects
COPY tokens tokens
COPY statemachine statemachine
COPY worker worker
COPY api api
COPY client client
COPY login_relay login_relay
RUN /opt/build/bin/hatchling build -t wheel -d /wheel \
 && python -m pip --python /opt/login-relay/bin/python install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/login-relay/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /opt/login-relay /opt/login-relay
# Only `login-relay serve` writes here: its embedded server's state folder.
WORKDIR /var/lib/login-relay
RUN chown 10001:10001 .
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["login-relay"]
CMD ["--help"]
