# The server on a CPU, with text and clips:
#   docker build -t carat .
#   docker run -p 127.0.0.1:8000:8000 -e CARAT_TOKEN -v "$PWD/my-run:/runs/my-run:ro" carat /runs/my-run
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY packaging packaging
COPY src src
RUN pip install --no-cache-dir -c constraints.txt '.[serve,text,clip]'
RUN useradd --create-home carat
USER carat
EXPOSE 8000
ENTRYPOINT ["carat", "serve", "--host", "0.0.0.0"]
