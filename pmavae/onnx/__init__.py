"""The model as ONNX files, for runtimes without torch (extra `onnx`)."""
