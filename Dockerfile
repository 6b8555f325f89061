# kagglehms with PyTorch for the CPU or for NVIDIA GPUs:
#   docker build --target cpu -t kagglehms .
#   docker build --target cuda -t kagglehms:cuda .        docker run --gpus all kagglehms:cuda doctor
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 NO_ALBUMENTATIONS_UPDATE=1
WORKDIR /opt/kagglehms
COPY . .

FROM base AS cuda
# PyPI's builds for Linux bring CUDA; the driver is the host's.
RUN pip install .
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["kagglehms"]

FROM base AS cpu
# Both from one index: PyPI's torchvision asks for CUDA and cannot be imported beside a torch without it.
RUN pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu
RUN pip install .
RUN useradd --create-home user
USER user
WORKDIR /home/user
ENTRYPOINT ["kagglehms"]
