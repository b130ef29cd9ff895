"""How smooth and how robust trained models are: loss and BLEU under perturbed inputs, sharpness of the loss.

``noisy_text``, ``averaged_loss``, ``curvature`` and ``loss_surface`` know neither fairseq nor a run.
"""
