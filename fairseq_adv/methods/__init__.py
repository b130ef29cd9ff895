"""The mathematics of each method, one file each; tensors in, tensors out."""
