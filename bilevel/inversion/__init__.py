"""Linear inverse problems as a user meets them: how ill-posed is it, which prior, which lambda, in one call.

result = invert(A, data, prior=TotalVariationPrior(), choice=Discrepancy(sigma=0.01))
"""

from typing import TYPE_CHECKING

import bilevel

if TYPE_CHECKING:
    from bilevel.inversion.choice import GCV, Choice, Discrepancy, Fixed, LCurve
    from bilevel.inversion.diagnosis import Diagnosis, diagnose
    from bilevel.inversion.inversion import Inversion, invert
    from bilevel.inversion.learned_lambda import Bilevel
    from bilevel.inversion.priors import L1Prior, LearnedPrior, Prior, Tikhonov, TotalVariationPrior

__all__, __getattr__, __dir__ = bilevel.lazy_names(__name__)
