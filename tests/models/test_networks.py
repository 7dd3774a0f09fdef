from __future__ import annotations

import pytest
import torch
from benchmarks.textbook import TextbookVAE, convolutional, fully_connected

from bvae_tune.errors import InputError
from bvae_tune.models.networks import ModelConfig, TrainedModel, build_network, initial_parameters, load_model

B, M = 6, 3
FC, CONV = (20, 16), (4, 9, 10, 12, 24)


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _textbook(model: ModelConfig, channels: int, parameters: dict[str, torch.Tensor], replica: int) -> TextbookVAE:
    a, b, *rest = model.layer_widths
    if model.architecture == "fc":
        vae = fully_connected((a, b), M, channels * 64 * 64)
    else:
        c, d, hidden = rest
        vae = convolutional((a, b, c, d, hidden), M, channels)
    with torch.no_grad():
        for theirs, ours in zip(vae.parameters(), parameters.values(), strict=True):
            theirs.copy_(ours[replica])  # same order and shapes: our weights are PyTorch's
    return vae


@pytest.mark.parametrize(("architecture", "widths"), [("fc", FC), ("conv", CONV)])
@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_and_gradients_are_those_of_plain_modules(
    architecture: str, widths: tuple[int, ...], channels: int
) -> None:
    model = ModelConfig(architecture, widths, latent_size=M)  # type: ignore[arg-type]
    network = build_network(model, channels, 64, 64)
    parameters = initial_parameters(network, [3, 8])
    images, codes = _random(2, B, channels * 64 * 64, seed=1), _random(2, B, M, seed=2)
    encoded, decoded = network.encoder.forward(parameters, images), network.decoder.forward(parameters, codes)
    assert torch.equal(encoded[-1], network.encoder.run(parameters, images))
    to_encoded, to_decoded = _random(2, B, 2 * M, seed=3), _random(2, B, channels * 64 * 64, seed=4)
    nothing, of_encoder = network.encoder.backward(parameters, encoded, to_encoded, False)
    to_codes, of_decoder = network.decoder.backward(parameters, decoded, to_decoded, True)
    assert nothing is None
    assert to_codes is not None
    gradients = of_encoder | of_decoder
    assert list(gradients) == list(network.specs)

    for replica in range(2):
        vae = _textbook(model, channels, parameters, replica)
        expected = vae.encoder(images[replica].view(B, channels, 64, 64))
        torch.testing.assert_close(encoded[-1][replica], expected, rtol=1e-4, atol=1e-6)
        expected.backward(to_encoded[replica])
        latents = codes[replica].clone().requires_grad_()
        drawn = vae.decoder(latents).flatten(1)
        torch.testing.assert_close(decoded[-1][replica], drawn, rtol=1e-4, atol=1e-6)
        drawn.backward(to_decoded[replica])
        torch.testing.assert_close(to_codes[replica], latents.grad, rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(gradients.values(), vae.parameters(), strict=True):
            scale = theirs.grad.abs().max()
            torch.testing.assert_close(ours[replica] / scale, theirs.grad / scale, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("architecture", "widths"), [("fc", FC), ("conv", CONV)])
def test_bfloat16_stays_near_float32(architecture: str, widths: tuple[int, ...]) -> None:
    model = ModelConfig(architecture, widths, latent_size=M)  # type: ignore[arg-type]
    network = build_network(model, 1, 64, 64)
    parameters = initial_parameters(network, [4])
    halved = {name: values.bfloat16() for name, values in parameters.items()}
    images, codes = _random(1, B, 4096, seed=3).round(), _random(1, B, M, seed=4)
    for stack, inputs in ((network.encoder, images), (network.decoder, codes)):
        rough = stack.run(halved, inputs.bfloat16())
        assert rough.dtype == torch.bfloat16
        torch.testing.assert_close(rough.float(), stack.run(parameters, inputs), rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # 4096-1200-1200-20 and 10-1200-1200-1200-4096, with biases.
        (ModelConfig("fc"), 4_916_400 + 1_441_200 + 24_020 + 13_200 + 2 * 1_441_200 + 4_919_296),
        # Convolutions 1-32-32-64-64, 1024-256-64; 32-256-1024, 64-64-32-32-1.
        (
            ModelConfig("conv", latent_size=32),
            (544 + 16_416 + 32_832 + 65_600 + 262_400 + 16_448) + (8_448 + 263_168 + 65_600 + 32_800 + 16_416 + 513),
        ),
    ],
)
def test_table_1_has_its_parameters(model: ModelConfig, parameters: int) -> None:
    specs = build_network(model, 1, 64, 64).specs
    assert sum(torch.Size(spec.shape).numel() for spec in specs.values()) == parameters


def test_fc_takes_any_size_and_conv_says_that_it_does_not() -> None:
    network = build_network(ModelConfig("fc", FC, latent_size=M), 3, 20, 30)
    encoded = network.encoder.run(initial_parameters(network, [0]), _random(1, B, 1800, seed=4))
    assert encoded.shape == (1, B, 2 * M)
    with pytest.raises(InputError, match=r"conv takes images of 64x64 pixels, these are 32x48.*fc"):
        build_network(ModelConfig("conv"), 1, 32, 48)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_trained_model_encodes_each_replica_and_decodes_into_the_unit_interval(likelihood: str) -> None:
    model = ModelConfig("conv", CONV, likelihood, latent_size=M)  # type: ignore[arg-type]
    network = build_network(model, 1, 64, 64)
    trained = TrainedModel(model, network, initial_parameters(network, [1, 2]))
    images = _random(1, B, 4096, seed=5)
    codes = trained.encode(images)
    assert codes.logvar is not None
    assert codes.mean.shape == codes.logvar.shape == (2, B, M)
    torch.testing.assert_close(codes.mean, trained.encode(images.expand(2, B, 4096)).mean)
    assert not torch.allclose(codes.mean[0], codes.mean[1])
    decoded = trained.decode(100 * codes.mean)
    assert decoded.shape == (2, B, 4096)
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_saved_weights_are_loaded_or_refused() -> None:
    model = ModelConfig("fc", FC, latent_size=M)
    weights = initial_parameters(build_network(model, 1, 64, 64), [6, 7])
    trained = load_model(weights, model, 1, 64, 64)
    assert trained.replicas == 2
    assert trained.device == torch.device("cpu")
    with pytest.raises(InputError, match=r"encoder\.2\.weight.*\[2, 6, 16\].*\[2, 8, 16\]"):
        load_model(weights, ModelConfig("fc", FC, latent_size=M + 1), 1, 64, 64)
    with pytest.raises(InputError, match="another model configuration"):
        load_model(weights, ModelConfig("fc", (20,), latent_size=M), 1, 64, 64)
    with pytest.raises(InputError, match=r"decoder\.3\.bias"):
        load_model({**weights, "decoder.3.bias": weights["decoder.3.bias"][:1]}, model, 1, 64, 64)
