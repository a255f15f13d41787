"""The unrolled generator draws JAX's own numbers: known answers, then draw for draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import prng

SPLITS = [(), (3,), (2, 5)]
SHAPES = [(), (7,), (0,)]

# Threefry-2x32 with 20 rounds: Salmon et al. (2011), the known answers distributed with Random123.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def draws(key):
    """One of everything that `jax.random` draws for this project, by name."""
    out = {}
    for shape in SPLITS:
        out[f"split {shape}"] = jax.random.key_data(jax.random.split(key, shape))
    for shape in SHAPES:
        out[f"uniform {shape}"] = jax.random.uniform(key, shape)
    for width in (8, 16, 32):
        out[f"bits {width}"] = jax.random.bits(key, (3, 1, 7), f"uint{width}")
    for data in (7, 2**32 - 1):
        out[f"fold_in {data}"] = jax.random.key_data(jax.random.fold_in(key, jnp.uint32(data)))
    out["fold_in int32"] = jax.random.key_data(jax.random.fold_in(key, jnp.int32(12345)))
    out["normal"] = jax.random.normal(key, (5, 3))
    out["permutation"] = jax.random.permutation(key, 37)
    out["categorical"] = jax.random.categorical(key, jnp.linspace(-1.0, 1.0, 30).reshape(6, 5))
    out["randint"] = jax.random.randint(key, (11,), -3, 1000)
    out["bernoulli"] = jax.random.bernoulli(key, 0.3, (9,))
    out["chain"] = jax.random.uniform(jax.random.split(jax.random.fold_in(key, 3), 4)[2])
    return out


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2**32 - 5), jnp.arange(4))


@pytest.fixture(scope="module")
def stock(keys):
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draws))(keys))


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_known_answers(key, counter, answer):
    block = prng._threefry(jnp.array(key, jnp.uint32), *map(jnp.uint32, counter))
    assert tuple(int(x) for x in block) == answer


def test_draws_the_same_numbers(keys, stock):
    ours = jax.jit(jax.vmap(lambda key: draws(prng.unrolled(key))))(keys)
    for name, expected in stock.items():
        assert ours[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)


def test_without_jit_and_vmap(keys, stock):
    key = prng.unrolled(keys[1])
    for draw in (
        lambda: ("uniform (7,)", jax.random.uniform(key, (7,))),
        lambda: ("split (3,)", jax.random.key_data(jax.random.split(key, 3))),
        lambda: ("fold_in 7", jax.random.key_data(jax.random.fold_in(key, 7))),
        lambda: ("bits 8", jax.random.bits(key, (3, 1, 7), "uint8")),
    ):
        name, value = draw()
        np.testing.assert_array_equal(value, stock[name][1], err_msg=name)


def test_sixty_four_bits():
    with jax.enable_x64(True):
        key = jax.random.key(3)
        ours, theirs = (jax.random.bits(k, (5, 2), "uint64") for k in (prng.unrolled(key), key))
        assert ours.dtype == jnp.uint64
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(jax.random.normal(prng.unrolled(key), (3,)), jax.random.normal(key, (3,)))


def test_arrays_of_keys_and_old_style_keys(keys):
    np.testing.assert_array_equal(jax.random.key_data(prng.unrolled(keys)), jax.random.key_data(keys))
    assert prng.unrolled(keys).shape == keys.shape
    old = jax.random.PRNGKey(17)
    expected = jax.random.uniform(jax.random.key(17), (3,))
    np.testing.assert_array_equal(jax.random.uniform(prng.unrolled(old), (3,)), expected)
    assert prng.unrolled(jnp.stack([old, old])).shape == (2,)


def test_unrolling_twice_and_other_generators():
    key = prng.unrolled(jax.random.key(0))
    np.testing.assert_array_equal(jax.random.key_data(prng.unrolled(key)), jax.random.key_data(key))
    other = jax.random.key(0, impl="rbg")
    assert prng.unrolled(other) is other


def test_draws_are_straight_line_code_on_a_cpu():
    def compiled(key):
        cpu = jax.jit(lambda key: jax.random.uniform(key, (8,))).trace(key).lower(lowering_platforms=("cpu",))
        return cpu.compile().as_text()

    with jax.default_device(jax.devices("cpu")[0]):
        assert "while" in compiled(jax.random.key(0))
        assert "while" not in compiled(prng.unrolled(jax.random.key(0)))


@pytest.mark.parametrize("platforms", [("cpu",), ("cuda",), ("tpu",), ("cpu", "cuda")])
def test_the_platform_that_a_program_is_lowered_for_decides(platforms, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("the process's default does not matter"))
    traced = jax.jit(lambda key: jax.random.uniform(prng.unrolled(key), (8,))).trace(jax.random.key(0))
    text = traced.lower(lowering_platforms=platforms).as_text()
    assert ("optimization_barrier" in text) == ("cpu" in platforms)  # ours
    assert ("call @threefry2x32" in text) == (platforms != ("cpu",))  # JAX's


def test_what_a_key_draws_beside_others():
    """It is what it draws alone for the default generator, which runs use whatever the setting; not so for `rbg`."""

    def alike(impl):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0, impl=impl), jnp.arange(3))
        return bool(jnp.array_equal(jax.vmap(jax.random.uniform)(keys)[1], jax.random.uniform(keys[1])))

    assert alike("threefry2x32")
    assert not alike("rbg")
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        key = prng.by_threefry(lambda: jax.random.key(5))()
        bits = prng.by_threefry(jax.random.bits)(key, (3,))
    assert key == jax.random.key(5)
    np.testing.assert_array_equal(bits, jax.random.bits(key, (3,)))
