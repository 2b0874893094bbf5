"""The files of pmavae: safetensors, and what their headers say."""
