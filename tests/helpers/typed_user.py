"""A user's file, with NumPy arrays throughout: it passes pyright and runs."""

import functools

import jax
import numpy as np
import optax

import cnn_jax
from cnn_jax import augment, explain, nets
from cnn_jax.data import xo
from cnn_jax.training import Augment, Batch, Loss, Sample

image = np.random.default_rng(0).normal(size=(12, 10)).astype(np.float32)
photo = np.zeros((12, 10, 3), np.uint8)
feature = image[2:5, 3:6]
mask = np.ones((3, 3), bool)
kernel = np.zeros((3, 3, 3, 4))

# Scores, convolution and pooling.
cnn_jax.match(image, feature, padding="SAME")
cnn_jax.cosine(image, feature, mask=mask)
cnn_jax.zncc(image, feature, stride=(1, 2), fill="edge")
cnn_jax.squared_difference(image, feature)
cnn_jax.normalized_squared_difference(image, feature)
cnn_jax.sharpened_cosine(image, feature, p=np.float32(2), q=0.1)
cnn_jax.is_defined(image, feature, cnn_jax.cosine)
cnn_jax.conv(photo, kernel, padding=((1, 1), (0, 0)), dilation=2)
cnn_jax.window_sum(photo, 2)
cnn_jax.max_pool(photo, window=(2, 3))
cnn_jax.avg_pool(image)
cnn_jax.global_avg_pool(photo)

# Search.
matches = cnn_jax.find(image, [feature, image[:4, :2]], angles=np.linspace(0, 1, 3).tolist(), top_k=2, min_score=0.0)
corner: tuple[float, float] = (float(matches.y[0]), float(matches.x[0]))
cnn_jax.find(image, feature, score=functools.partial(cnn_jax.sharpened_cosine, p=2.0))
cnn_jax.peaks(image, top_k=3, min_distance=2)

# Layers and networks.
net = cnn_jax.Chain(
    cnn_jax.Conv(2, 3, kernel_init=jax.nn.initializers.lecun_normal()),
    cnn_jax.BatchNorm(),
    cnn_jax.Activation(jax.nn.relu),
    cnn_jax.Match(2, score=cnn_jax.cosine),
    cnn_jax.Flatten(),
    cnn_jax.Dense(2),
)
images = np.random.default_rng(1).uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32)
labels = np.arange(8) % 2
params = cnn_jax.calibrate(net, net.init(jax.random.key(0), (8, 8, 1)), images)
logits: jax.Array = net.apply(params, images[0], train=False, key=None)
stages: dict[str, jax.Array] = net.stages(params, images[0])
multiply_adds: int = cnn_jax.cost(net, (8, 8, 1)).stages["conv1"].multiply_adds
cnn_jax.receptive_field(nets.xo_net(), (28, 28, 1))

# Training.
vary: Augment = lambda key, batch: (batch.images, batch.labels)  # noqa: E731
loss: Loss = optax.softmax_cross_entropy_with_integer_labels
draw: Sample = functools.partial(xo.draw, size=8)


def flip(key: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(augment.flip)(jax.random.split(key, len(batch.images)), batch.images), batch.labels


params, history = cnn_jax.fit(
    net,
    (images, labels),
    optimizer=optax.adam(1e-3),
    steps=2,
    key=jax.random.key(0),
    batch_size=4,
    augment=flip,
    loss=loss,
    progress=False,
)
last_loss: float = float(history["loss"][-1])
params = cnn_jax.calibrate(net, params, images)


def stop_early(step: int, state: cnn_jax.TrainState, metrics: dict[str, float]) -> bool:
    return metrics["loss"] < 0.01


trained = cnn_jax.fit(
    net,
    draw,
    optimizer=optax.sgd(0.1),
    steps=1,
    key=jax.random.key(1),
    batch_size=4,
    validation=(images, labels),
    callback=stop_early,
    progress=False,
)
state: cnn_jax.TrainState = trained.state
step = cnn_jax.train_step(net, optax.sgd(0.1), loss=loss)
state, metrics = step(state, images, labels)
step_loss: float = float(metrics["loss"])
accuracy: float = cnn_jax.evaluate(net, params, (images, labels), metrics={"loss": loss})["loss"]
outputs: np.ndarray = cnn_jax.predict(net, params, images)


# Explanations.
explain.saliency(net, params, images[0], label=1)
explain.integrated_gradients(net, params, images[0], baseline=images[1], steps=4)
explain.occlusion(net, params, images[0], window=3)
explain.top_activating_patches(net, params, images, stage="conv1", count=2)
