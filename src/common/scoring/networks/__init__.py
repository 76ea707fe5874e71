"""Networks: backbones of torchvision and timm, the classifier and the stain network on them."""
