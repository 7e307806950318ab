"""Multi-scale deformable attention: softmax, locations, bilinear gather and sum in one pass."""
