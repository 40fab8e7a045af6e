"""Pretrained models: complete, from safetensors or GGUF only, and without running their code."""
