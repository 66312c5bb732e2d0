"""Records and predictions with known accuracies."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
IN21K = "vit_base_patch16_224.augreg_in21k"
CIFAR = "pilot-cifar100-b0inc5"
