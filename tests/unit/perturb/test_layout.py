"""Canonical layout against loops over sentences and tokens."""

import torch

from fairseq_adv.perturb.layout import Perturbation, place_on_tokens, real_token_mask

PAD = 1
# left-padded, right-padded, full, one token, padding only, padding in the middle
TOKENS = torch.tensor([[1, 1, 7, 8], [7, 8, 1, 1], [4, 5, 6, 7], [1, 1, 1, 9], [1, 1, 1, 1], [3, 1, 1, 5]])


def test_mask_counts_real_tokens_in_front():
    mask = real_token_mask(TOKENS, PAD)
    for row, tokens in zip(mask.tolist(), TOKENS.tolist()):
        count = sum(t != PAD for t in tokens)
        assert row == [k < count for k in range(4)]


def test_place_puts_kth_value_on_kth_real_token():
    delta = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    placed = place_on_tokens(delta, TOKENS, PAD)
    for b, tokens in enumerate(TOKENS.tolist()):
        k = 0
        for column, token in enumerate(tokens):
            if token == PAD:
                assert placed[b, column].abs().sum() == 0
            else:
                assert torch.equal(placed[b, column], delta[b, k])
                k += 1


def test_left_and_right_padding_give_a_sentence_the_same_perturbation():
    delta = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    placed = place_on_tokens(delta, TOKENS[:2], PAD)
    assert torch.equal(placed[0, 2:], placed[1, :2])


def test_sentences_returns_real_tokens_only_and_norms_match():
    mask = real_token_mask(TOKENS, PAD)
    values = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)) * mask.unsqueeze(-1)
    delta = Perturbation({"src": values}, {"src": mask})
    sentences = delta.sentences("src")
    assert [len(s) for s in sentences] == [2, 2, 4, 1, 0, 2]
    expected = torch.tensor([sum(x * x for x in s.flatten().tolist()) ** 0.5 for s in sentences])
    torch.testing.assert_close(delta.sentence_norms("src"), expected)


def test_zero_rows_clears_whole_sentences_only():
    mask = torch.ones(3, 2, dtype=torch.bool)
    delta = Perturbation({"src": torch.ones(3, 2, 2), "tgt": torch.ones(3, 2, 2)}, {"src": mask, "tgt": mask})
    cleared = delta.zero_rows(torch.tensor([False, True, False]))
    for side in ("src", "tgt"):
        assert cleared.values[side].sum(dim=(1, 2)).tolist() == [4.0, 0.0, 4.0]
