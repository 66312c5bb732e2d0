"""Writes a trained model as a fixed graph that runs without this package: ONNX or torch.export."""
