"""The text files of a repository; @NAME@ is the model's name, a line with @GPU@ is for GPUs only."""

from __future__ import annotations

__all__ = ["KSERVE", "KUBERNETES", "MODEL_PY", "README"]

MODEL_PY = '''"""Files of pictures in; class, box and mask out. Needs lidcam-rt in Triton's Python."""

from pathlib import Path

import triton_python_backend_utils as pb_utils
from lidcam_serve.triton.backend import PicturesModel


class TritonPythonModel(PicturesModel):
    """Triton looks for this name."""

    def initialize(self, args):
        self.start(pb_utils, Path(__file__).parent)
'''

README = """# @NAME@ for Triton Inference Server

Written by `lidcam export-triton`. Two models:

- `@NAME@`: the network. Inputs and outputs are those of the artifact, at its exported size; Triton does the batching.
- `@NAME@_pictures`: the file of a picture in (`picture`, BYTES [1]; `labels` if the artifact takes them); `class_id`,
  `class_name`, `score`, `box`, `threshold`, `mask` out. It runs in Triton's Python backend, which needs lidcam-rt:

      FROM nvcr.io/nvidia/tritonserver:YY.MM-py3
      RUN pip install lidcam-rt

Start it:

    tritonserver --model-repository=/models

with this folder as /models (Triton uses only the folders that have a config.pbtxt). Query it:

    import numpy as np, tritonclient.http as triton
    client = triton.InferenceServerClient("localhost:8000")
    picture = triton.InferInput("picture", [1], "BYTES")
    picture.set_data_from_numpy(np.array([open("photo.jpg", "rb").read()], object))
    print(client.infer("@NAME@_pictures", [picture]).as_numpy("box"))

The network needs nothing from lidcam: PaS runs in standard operators. With `--ops-library PATH` at export, Triton loads
the operator library instead, from that absolute path on its own machine. An engine (`--engine`) runs only on the kind
of GPU and the version of TensorRT it was built with.

kserve.yaml and kubernetes.yaml are examples: fill in your image and storage.
"""

KSERVE = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: "@DNS@"
spec:
  predictor:
    triton:
      protocolVersion: v2
      storageUri: "pvc://models/@NAME@"
      image: registry.example/tritonserver-lidcam:latest
      resources:
        requests:
          cpu: "2"
          memory: 4Gi
        limits:
          cpu: "2"
          memory: 4Gi
          nvidia.com/gpu: 1@GPU@
"""

KUBERNETES = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: "@DNS@"
spec:
  replicas: 1
  selector:
    matchLabels:
      app: "@DNS@"
  template:
    metadata:
      labels:
        app: "@DNS@"
    spec:
      containers:
      - name: triton
        image: registry.example/tritonserver-lidcam:latest
        args: ["tritonserver", "--model-repository=/models"]
        ports:
        - containerPort: 8000
          name: http
        - containerPort: 8001
          name: grpc
        - containerPort: 8002
          name: metrics
        readinessProbe:
          httpGet:
            path: /v2/health/ready
            port: http
        livenessProbe:
          httpGet:
            path: /v2/health/live
            port: http
        volumeMounts:
        - name: models
          mountPath: /models
          readOnly: true
        resources:
          limits:
            cpu: "2"
            memory: 4Gi
            nvidia.com/gpu: 1@GPU@
      volumes:
      - name: models
        persistentVolumeClaim:
          claimName: "@DNS@-models"
---
apiVersion: v1
kind: Service
metadata:
  name: "@DNS@"
spec:
  selector:
    app: "@DNS@"
  ports:
  - name: http
    port: 8000
    targetPort: http
  - name: grpc
    port: 8001
    targetPort: grpc
"""
