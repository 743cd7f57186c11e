"""A trained network as a file that runs without this repository: ONNX, or a program of torch.export."""
