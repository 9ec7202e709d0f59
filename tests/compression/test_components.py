from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled.graph import SimilarityGraph
from llava_scissor.compression.engines.tiled.labels import label_edges, order_components
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.engines.tiled.tiles import TokenSets
from tests.compression.draws import (
    ROUNDING,
    connected_components,
    draw,
    gaussian,
    on_circle,
    one_set,
    partition,
    videos,
    with_zeros,
)
from tests.reference.forest import single_linkage_count
from tests.reference.graph import components, labels_of, neighbours, similarities


def count_neighbours(sets, tau):
    """Degrees along all edges, those that make no difference to any component included."""
    graph = SimilarityGraph(sets, tau)
    if graph._open:
        graph._settle(graph._take(graph._open))
    return graph._degree


def oracle(tokens, tau, sample=None):
    adjacency = neighbours(similarities(tokens), tau, None if sample is None else set(sample))
    return labels_of(components(adjacency)), [len(others) for others in adjacency]


def assert_like_oracle(tokens, tau, sample=None):
    labels, degree = oracle(tokens, tau, sample)
    sets = one_set(tokens, sample)
    found = connected_components(sets, tau)
    assert found.labels.tolist() == labels
    assert found.count == max(labels) + 1
    assert count_neighbours(sets, tau).tolist() == degree


def linked(num_vertices, edges):
    """Tokens with similarity > 0.05 exactly along the edges: one coordinate for each vertex and each edge."""
    tokens = torch.zeros(num_vertices, num_vertices + len(edges))
    tokens[range(num_vertices), range(num_vertices)] = 1
    for e, (u, v) in enumerate(edges):
        tokens[[u, v], num_vertices + e] = 1
    return tokens


GRAPHS = {
    "chain": [(i, i + 1) for i in range(11)],
    "two chains": [(i, i + 2) for i in range(10)],
    "ring": [(i, (i + 1) % 12) for i in range(12)],
    "star": [(7, i) for i in range(12) if i != 7],
    "two stars": [(9, i) for i in range(0, 8, 2)] + [(3, i) for i in (1, 5, 7, 11)],
    "clique": [(i, j) for i in range(6) for j in range(i)],
    "bridge": [(i, j) for i in range(4) for j in range(i)] + [(0, 11)] + [(11, 10), (10, 9)],
    "tree": [((i - 1) // 2, i) for i in range(1, 12)],
    "nothing": [],
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("seed", range(3))
def test_graphs_of_every_form(name, seed):
    order = np.random.default_rng(seed).permutation(12) if seed else range(12)
    edges = [(int(order[u]), int(order[v])) for u, v in GRAPHS[name]]
    tokens = linked(12, edges)
    assert_like_oracle(tokens, 0.05)
    graph = nx.Graph(edges)
    graph.add_nodes_from(range(12))
    found = connected_components(one_set(tokens), 0.05)
    assert partition(found.labels) == {frozenset(part) for part in nx.connected_components(graph)}


def test_a_long_chain_is_one_component():
    # Neighbours in the chain share a coordinate: similarity 0.5, else 0. Shuffled, so that it is deep.
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    tokens = (torch.eye(2000) + torch.eye(2000).roll(1, dims=1))[order]
    tokens[order == 1999, 0] = 0  # opens the ring
    sets = one_set(tokens)
    assert connected_components(sets, 0.25).count == 1
    assert count_neighbours(sets, 0.25).bincount().tolist() == [0, 2, 1998]


def test_an_edge_needs_more_than_tau():
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # similarities 0 and -1 are exact
    assert connected_components(one_set(tokens), 0.0).count == 3
    assert connected_components(one_set(tokens), -0.01).count == 1
    assert connected_components(one_set(tokens[1:]), -1.0).count == 2


def test_duplicates_are_one_component():
    tokens = torch.eye(3)[[0, 1, 0, 2, 1, 0]] * torch.arange(1, 7)[:, None]
    assert connected_components(one_set(tokens), 0.99).labels.tolist() == [0, 1, 0, 2, 1, 0]


@pytest.mark.parametrize("tau", [-1.0, -0.5, 0.0, 0.9, 1.0])
def test_zero_tokens_stay_alone(tau):
    tokens = draw(gaussian, 1, 8, 3)[0]
    tokens[[1, 2, 6]] = 0
    labels = connected_components(one_set(tokens), tau).labels
    for vertex in (1, 2, 6):
        assert (labels == labels[vertex]).sum() == 1


@pytest.mark.parametrize("kind", [gaussian, with_zeros])
def test_thresholds_outside_of_the_similarities(kind):
    sets = TokenSets(directions(draw(kind, 3, 7, 4)))
    assert connected_components(sets, 1.01).labels.tolist() == list(range(21))
    assert connected_components(sets, -1.01).labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7


def test_order_is_that_of_the_hubs():
    # Vertex 0 belongs to the star of hub 5, which comes after hub 2; of the pair (3, 4) the first decides.
    edges = [(5, 0), (5, 6), (5, 7), (2, 1), (2, 8), (3, 4)]
    assert connected_components(one_set(linked(9, edges)), 0.05).labels.tolist() == [
        2,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
        0,
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12))
def test_order_by_degree_then_index(vertices):
    labels, degree = (torch.tensor(part) for part in zip(*vertices, strict=True))
    labels %= len(vertices)
    leaders = sorted(min(members, key=lambda i: (-degree[i].item(), i)) for members in partition(labels))
    found = order_components(labels, degree)
    assert found.count == len(leaders)
    assert [found.labels[leader].item() for leader in leaders] == list(range(found.count))
    assert partition(found.labels) == partition(labels)


@given(videos(), st.floats(-1, 1))
def test_sets_are_searched_together_but_apart(video, tau):
    assume(all((abs(similarities(frame) - tau) > ROUNDING).all() for frame in video))
    found = connected_components(TokenSets(directions(video)), tau)
    expected, first = [], 0
    for frame in video:
        labels, _ = oracle(frame, tau)
        expected += [first + label for label in labels]
        first += max(labels) + 1
    assert found.labels.tolist() == expected


@given(videos(max_frames=1, max_size=20), st.floats(-1, 1))
def test_counts_at_every_threshold_are_those_of_single_linkage(video, tau):
    similarity_of = similarities(video[0])
    assume((abs(similarity_of - tau) > ROUNDING).all())
    assert connected_components(one_set(video[0]), tau).count == single_linkage_count(similarity_of, tau)


@given(videos(max_frames=1, max_size=14), st.floats(-1, 1), st.data())
def test_sampled_search_follows_edges_with_a_sampled_end(video, tau, data):
    tokens = video[0]
    assume((abs(similarities(tokens) - tau) > ROUNDING).all())
    sample = data.draw(st.sets(st.integers(0, len(tokens) - 1), min_size=1))
    assert_like_oracle(tokens, tau, sample)


def test_vertices_next_to_no_sampled_one_stay_alone():
    tokens = linked(6, [(0, 1), (1, 2), (3, 4), (4, 5)])
    assert connected_components(one_set(tokens, [1]), 0.05).labels.tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize("entries", [1, 13, 40, 170, 400])
@pytest.mark.parametrize("sample", [None, [0, 3, 4, 11]])
def test_blocks_do_not_change_anything(entries, sample):
    video = draw(gaussian, 3, 13, 3)
    chosen = None if sample is None else torch.tensor([sample] * 3)
    sets = TokenSets(directions(video), chosen)
    whole = connected_components(sets, 0.6), count_neighbours(sets, 0.6)
    sets = TokenSets(directions(video), chosen, entries)
    assert torch.equal(connected_components(sets, 0.6).labels, whole[0].labels)
    assert torch.equal(count_neighbours(sets, 0.6), whole[1])


@given(st.integers(1, 30), st.data())
def test_edges_are_labelled_as_by_networkx(num_vertices, data):
    vertex = st.integers(0, num_vertices - 1)
    edges = data.draw(st.lists(st.tuples(vertex, vertex), max_size=40))  # self loops and repetitions included
    graph = nx.Graph(edges)
    graph.add_nodes_from(range(num_vertices))
    labels = label_edges(num_vertices, *torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T)
    assert partition(labels) == {frozenset(part) for part in nx.connected_components(graph)}
    assert labels.min() >= 0
    assert labels.max() < num_vertices


def test_points_on_a_circle():
    tokens = on_circle([0.0, 0.2, 0.4, 0.6, 2.0, 2.2, 4.0])
    labels = connected_components(one_set(tokens), float(np.cos(0.25))).labels
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert_like_oracle(tokens, 0.97)
