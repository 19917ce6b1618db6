"""Models: CARAT, baselines, pretrained encoders, layers and losses."""
