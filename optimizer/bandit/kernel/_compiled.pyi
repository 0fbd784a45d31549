"""What the C files beside this offer. Arrays lie in one piece (C order) and have the types below; (w) are written.

n rows, H heads, P pairs of variant and channel, S slots, K actions, F features, M draws; short are the time columns
that contexts meet. The rest is in the words of the modules that call this.
"""

import numpy as np
from numpy.typing import NDArray

def score(
    sizes: tuple[int, int, int, int, int, int, int, int],
    x: NDArray[np.float32],
    local: NDArray[np.int64],
    own: NDArray[np.float64] | None,
    context: NDArray[np.float64],
    time: NDArray[np.float64],
    short: NDArray[np.float64],
    bucket: NDArray[np.float64],
    worth: NDArray[np.float64],
    cost: NDArray[np.float64],
    steps: NDArray[np.int64],
    weighted: NDArray[np.int64],
    basis: NDArray[np.float32],
    hours: NDArray[np.int64],
    chance: NDArray[np.float64],
    reward: NDArray[np.float64],
    slope: NDArray[np.float32],
    /,
) -> None:
    """Chances (n, H, P, S) (w), rewards (n, P, S) (w) and slopes (n, Hw, P, S) (w) of messages, and the time bases
    (n, 18, S) (w) and hours of the week (n, S) (w) of their slots.

    sizes: n, H, P, S, F, short, steps, Hw. local: (n, S) seconds. own: (n, H, S) or None. context … bucket: of a
    ``Tower``. worth: (H, P).
    """

def stay(
    sizes: tuple[int, int, int, int, int, int, int],
    x: NDArray[np.float32],
    order: NDArray[np.int64],
    mean: NDArray[np.float64],
    bank: NDArray[np.float32],
    worth: NDArray[np.float64],
    weighted: NDArray[np.int64],
    places: NDArray[np.int64],
    stay: NDArray[np.float64],
    reward: NDArray[np.float64],
    drawn: NDArray[np.float32],
    /,
) -> None:
    """Not sending: chances (n, H) (w) at the places of its heads, rewards (n,) (w), drawn rewards (n, M) (w).

    sizes: n, F, H0, base, Hw0, M, H. order … places: the ``no_send_*`` of a ``Prepared``.
    """

def best(
    sizes: tuple[int, int, int, int, bool, int, int, int, int, int],
    x: NDArray[np.float32],
    basis: NDArray[np.float32],
    hours: NDArray[np.int64],
    slope: NDArray[np.float32],
    reward: NDArray[np.float32],
    stay: NDArray[np.float32],
    mask: NDArray[np.bool_],
    toll: NDArray[np.float64] | None,
    context: NDArray[np.float32],
    level: NDArray[np.float32],
    short: NDArray[np.float32],
    time: NDArray[np.float32],
    bucket: NDArray[np.float32],
    chosen: NDArray[np.int64],
    /,
) -> bool:
    """The best eligible action of each draw: ``chosen`` (n, M) (w). False: a drawn reward is not finite.

    sizes: n, variants, S, channels, whether not sending is an action, Hw, M, F, short, time columns.
    context … bucket: of a ``Bank``.
    """

def with_floor(
    sizes: tuple[int, int, int, int, bool],
    rate: float,
    p: NDArray[np.float64],
    mask: NDArray[np.bool_],
    greedy: NDArray[np.int64],
    dayparts: NDArray[np.int64],
    asked: NDArray[np.float64],
    out: NDArray[np.float64],
    /,
) -> bool:
    """The floor under each row: ``out`` (n, K) (w). False: a greedy action is not eligible.

    sizes: n, variants, S, channels, whether not sending is an action. asked: minima (V + C + 4) of groups that have
    eligible actions.
    """
