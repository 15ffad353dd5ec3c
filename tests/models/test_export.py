"""What is left for inference leaves Python too: torch.export and ONNX, for a batch of any size."""

import pytest
import timm
import torch

from robustfer.models import CAMClassifier, ImportanceClassifier, strip_for_inference

SMALL = {"img_size": 64}
NETWORKS = [
    ("resnet10t", {}, "linear"),
    ("swin_tiny_patch4_window7_224", {**SMALL, "embed_dim": 24, "depths": (1,) * 4}, "linear"),
    ("convnext_atto", {"depths": (1, 1, 1, 1)}, "norm_linear"),
    ("vit_tiny_patch16_224", {**SMALL, "depth": 2, "global_pool": "avg"}, "norm_linear"),
    ("vit_tiny_patch16_224", {**SMALL, "depth": 2}, "replaced"),
    ("deit_tiny_distilled_patch16_224", {**SMALL, "depth": 2}, "replaced"),
]
ANY_BATCH = ({0: torch.export.Dim("batch", min=1, max=64)},)


def build(name, options, kind):
    torch.manual_seed(0)
    model = CAMClassifier(name, num_classes=7, model_options=options).eval()
    assert model.head_kind == kind
    return model


def batches(size=64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, size, size, generator=generator) for batch in (2, 1, 5)]


@pytest.mark.parametrize(("name", "options", "kind"), NETWORKS)
def test_stripped_networks_export_with_a_batch_of_any_size(name, options, kind):
    model = build(name, options, kind)
    stripped = strip_for_inference(ImportanceClassifier(model))
    first, *others = batches()
    program = torch.export.export(stripped, (first,), dynamic_shapes=ANY_BATCH).module()
    for images in (first, *others):
        torch.testing.assert_close(program(images), model(images).logits, rtol=1e-4, atol=1e-5)


def test_the_classifier_itself_exports_with_its_maps():
    model = build("vit_tiny_patch16_224", {**SMALL, "depth": 2}, "replaced")
    first, *others = batches()
    program = torch.export.export(model, (first,), dynamic_shapes=ANY_BATCH).module()
    for images in others:
        torch.testing.assert_close(program(images), model(images), rtol=1e-4, atol=1e-5)


# Older torch's own exporter uses an old name of torch.
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
def test_onnx_runtime_makes_the_same_logits(tmp_path):
    import onnxruntime

    model = build("vit_tiny_patch16_224", {**SMALL, "depth": 2}, "replaced")
    path, (first, *others) = tmp_path / "model.onnx", batches()
    torch.onnx.export(
        strip_for_inference(model).requires_grad_(False),
        (first,),
        path,
        dynamo=True,
        dynamic_shapes=ANY_BATCH,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images_name,) = (given.name for given in session.get_inputs())
    for images in (first, *others):
        (logits,) = session.run(None, {images_name: images.numpy()})
        torch.testing.assert_close(
            torch.from_numpy(logits), model(images).logits, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", ["levit_128s", "tiny_vit_5m_224"])
def test_networks_that_keep_results_of_a_forward_are_copied(name):
    """timm keeps the attention biases of the last evaluation, with their gradient."""
    torch.manual_seed(0)
    model = CAMClassifier(name, num_classes=7).eval()
    images = torch.rand(1, *model.input_size)
    expected = model(images).logits
    assert expected.requires_grad
    stripped = strip_for_inference(model)
    torch.testing.assert_close(stripped(images), expected, rtol=1e-4, atol=1e-5)
    stripped.train()(images.expand(2, -1, -1, -1)).sum().backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_copy_made_in_inference_mode_serves_outside():
    network = timm.create_model("resnet10t", num_classes=7)
    model = CAMClassifier(network, num_classes=7)
    with torch.inference_mode():
        stripped = strip_for_inference(model)
    stripped(torch.rand(1, 3, 64, 64)).sum().backward()
