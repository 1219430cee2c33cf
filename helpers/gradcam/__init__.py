"""Where a network looks: Grad-CAM, and the tests that a map has to pass before anybody believes it.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) takes the maps A_k that a layer puts out and asks how
much the score y of a class would grow with each of them:

    map = ReLU( sum over k of a_k A_k ),   a_k = mean over places of dy / dA_k

A map is float32 ``[N, H, W]``, one a picture, 0 or more unless it was asked for with its sign. Whether it
says anything about the network is for the rest of this room to find out: :func:`random_maps` and
:func:`cascade` make maps and networks that know nothing; :func:`pointing_hits`, :func:`energy_inside`,
:func:`deletion` and :func:`insertion` measure how far a map is better than those.
"""

from helpers.gradcam.controls import cascade, random_maps, randomised, rank_correlation
from helpers.gradcam.curves import Curves, deletion, insertion
from helpers.gradcam.maps import aligned, enlarged, grad_cam, last_map, to_map, watch
from helpers.gradcam.pointing import energy_inside, pointing_hits
from helpers.gradcam.score import Targets

__all__ = [
    "Curves",
    "Targets",
    "aligned",
    "cascade",
    "deletion",
    "energy_inside",
    "enlarged",
    "grad_cam",
    "insertion",
    "last_map",
    "pointing_hits",
    "random_maps",
    "randomised",
    "rank_correlation",
    "to_map",
    "watch",
]
