"""The API of Azure Personalizer: v1.0, v1.1-preview.1 to .3, and 2022-09-01-preview."""

from optimizer.web.compat.personalizer.routes import PREFIX, blueprint, install

__all__ = ["PREFIX", "blueprint", "install"]
