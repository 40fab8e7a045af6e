"""Models of others, taken from a folder or the hub: whole, by safetensors or GGUF alone, and never
with code of their own."""
