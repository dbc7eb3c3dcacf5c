"""What masked pre-training needs of a backbone: its patches one by one, and its tokens of some of them."""

from abc import abstractmethod

from torch import Tensor

from ecg_lightning.backbones.base import Backbone


class PatchBackbone(Backbone):
    """A transformer over a grid of patches, which can be asked for the tokens of some patches alone.

    Patches are counted row by row, a row being the patches of one group of leads in the order of time.
    """

    @property
    @abstractmethod
    def patch_grid(self) -> tuple[int, int]:
        """Rows (groups of leads) and columns (stretches of time) of patches."""

    @property
    @abstractmethod
    def patch_size(self) -> tuple[int, int]:
        """Leads and time points of one patch."""

    @abstractmethod
    def visible_tokens(self, ecg: Tensor, visible: Tensor) -> Tensor:
        """What the encoder makes of the patches at ``visible`` when it sees no others.

        Args:
            ecg: (batch, lead, time).
            visible: (batch, kept) int64, places of patches, each once.

        Returns:
            (batch, kept, dim), behind the norm that the features go through; class tokens and separators left out.
        """

    @property
    def num_patches(self) -> int:
        """Of one ECG."""
        rows, columns = self.patch_grid
        return rows * columns

    def patch_values(self, ecg: Tensor) -> Tensor:
        """``ecg`` (batch, lead, time) -> (batch, patch, value): what lies in each patch, lead by lead."""
        (rows, columns), (leads, points) = self.patch_grid, self.patch_size
        grid = ecg.reshape(-1, rows, leads, columns, points)
        return grid.transpose(2, 3).reshape(len(ecg), rows * columns, leads * points)

    def ecg_of(self, values: Tensor) -> Tensor:
        """The reverse of `patch_values`: (batch, patch, value) -> (batch, lead, time)."""
        (rows, columns), (leads, points) = self.patch_grid, self.patch_size
        grid = values.reshape(-1, rows, columns, leads, points)
        return grid.transpose(2, 3).reshape(len(values), rows * leads, columns * points)


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """``tokens`` (batch, token, dim) at ``places`` (batch, kept) -> (batch, kept, dim)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
