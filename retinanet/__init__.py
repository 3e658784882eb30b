"""RetinaNet (Lin et al., arXiv 1708.02002): training, evaluation and ablation of dense detectors."""
