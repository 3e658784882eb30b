# docker build -t retinanet .        for a CPU alone, add: --build-arg TORCH_INDEX=URL of an index of CPU wheels
# docker run --gpus all --ipc=host -v "$PWD:/work" retinanet train own data=photos
FROM python:3.12-slim
ARG TORCH_INDEX=""
COPY . /src
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install --no-cache-dir "/src[export]" && rm -rf /src
WORKDIR /work
ENTRYPOINT ["retinanet"]
