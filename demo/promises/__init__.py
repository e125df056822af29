"""What `make demo AUTO=1` tries to break, one module per subject; `demo.promises.subjects` lists them."""
