from __future__ import annotations

import pytest
import torch
from PIL import Image

from llava_scissor.compression import build_compressor
from llava_scissor.config import GenerationConfig, ScissorConfig, VideoConfig
from llava_scissor.errors import ImageError, InputError, VideoError
from llava_scissor.generation import Session, ask
from llava_scissor.generation.decode import Reply
from llava_scissor.model import Images, Turn

SHORT = GenerationConfig(max_new_tokens=8)
QUESTIONS = ["what is this?", "is this a helpful assistant", "what are You", "what is this?"]
PICTURE = Image.effect_noise((90, 60), 80)


@pytest.fixture
def counts(model, monkeypatch):
    """Calls of the vision tower and the compressor, and positions that the language model computed."""
    counts = {"tower": 0, "compressor": 0, "positions": []}
    compressor = build_compressor(ScissorConfig(retention_ratio=0.5))

    def compress(tokens):
        counts["compressor"] += 1
        return compressor(tokens)

    monkeypatch.setattr(model, "compressor", compress)

    def count_tower(*call):
        counts["tower"] += 1

    def count_positions(module, arguments, keywords):
        counts["positions"].append(keywords["inputs_embeds"].shape[1])

    handles = [
        model.vision_tower.register_forward_hook(count_tower),
        model.language_model.register_forward_pre_hook(count_positions, with_kwargs=True),
    ]
    yield counts
    for handle in handles:
        handle.remove()


def media(name, clip):
    return {
        "video": clip,
        "image": Images(PICTURE),
        "images": Images(PICTURE, PICTURE.rotate(90, expand=True)),
        "compressed": Images(PICTURE, compress=True),
        "text": None,
    }[name]


every_media = pytest.mark.parametrize("name", ["video", "image", "images", "compressed", "text"])


@every_media
@pytest.mark.parametrize(
    "config",
    [SHORT, GenerationConfig(max_new_tokens=8, do_sample=True, temperature=2.0, seed=3)],
    ids=["greedy", "sampled"],
)
def test_answers_are_those_of_ask(name, config, model, clip, counts):
    with Session(model, media(name, clip), VideoConfig(), config) as session:
        for question in QUESTIONS:
            answer = session.ask(question)
            alone = ask(model, media(name, clip), question, VideoConfig(), config)
            assert answer.text == alone.text
            assert (answer.num_prompt_tokens, answer.num_new_tokens, answer.finish_reason) == (
                alone.num_prompt_tokens, alone.num_new_tokens, alone.finish_reason
            )  # fmt: skip


def test_the_video_is_looked_at_and_prefilled_once(model, clip, counts):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        assert (counts["tower"], counts["compressor"], counts["positions"]) == (1, 1, [])
        for i, question in enumerate(QUESTIONS[:3]):
            counts["positions"].clear()
            answer = session.ask(question)
            num_behind = len(model.tokenize(question)[-1])
            computed, *steps = counts["positions"]
            assert computed == answer.num_prompt_tokens if i == 0 else computed < num_behind
            assert answer.num_cached_tokens == answer.num_prompt_tokens - computed
            assert steps == [1] * (answer.num_new_tokens - 1)
    assert (counts["tower"], counts["compressor"]) == (1, 1)


def test_what_questions_begin_with_is_not_computed_again(model, clip, counts):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        session.ask("what is this?")
        counts["positions"].clear()
        session.ask("what is helpful")
        _, tail = model.tokenize("what is helpful")
        assert counts["positions"][0] == len(tail) - len(["\n", "what", "is"])
        counts["positions"].clear()
        session.ask("what is helpful")
        assert counts["positions"][0] == 1


def test_logits_with_the_cache_are_those_without(model, clip, monkeypatch):
    seen = []
    choose = Reply.choose
    monkeypatch.setattr(Reply, "choose", lambda reply, row: seen.append(row.clone()) or choose(reply, row))
    with Session(model, clip, VideoConfig(), SHORT) as session:
        for question in QUESTIONS:
            seen.clear()
            session.ask(question)
            cached = torch.cat(seen)
            seen.clear()
            ask(model, clip, question, VideoConfig(), SHORT)
            # measured: 0.0 with logits of up to 3
            torch.testing.assert_close(cached, torch.cat(seen), rtol=0, atol=1e-5)


@every_media
def test_a_conversation_is_that_of_ask_and_its_turns_stay_in_the_cache(name, model, clip, counts):
    with Session(model, media(name, clip), VideoConfig(), SHORT) as session:
        answer = session.ask(QUESTIONS[0])
        for question in QUESTIONS[1:3]:
            counts["positions"].clear()
            history = answer.history
            answer = session.ask(question, history)
            assert answer.history == (*history, Turn(question, answer.text))
            # new: the last token of the answer before, the end of its turn, and the question with its turns
            ids = model.tokenizer(
                f"\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            ).input_ids
            assert counts["positions"][0] <= len(ids) + 2
            assert answer.text == ask(
                model, media(name, clip), question, VideoConfig(), SHORT, history=history
            ).text  # fmt: skip


class TestTogether:
    @every_media
    @pytest.mark.parametrize(
        "config",
        [SHORT, GenerationConfig(max_new_tokens=8, do_sample=True, temperature=2.0, seed=3)],
        ids=["greedy", "sampled"],
    )
    def test_answers_are_those_of_one_question_after_the_other(self, name, config, model, clip):
        with Session(model, media(name, clip), VideoConfig(), config) as session:
            alone = [session.ask(question) for question in QUESTIONS]
        with Session(model, media(name, clip), VideoConfig(), config) as session:
            for together in (session.ask_together(QUESTIONS), session.ask_together(QUESTIONS)):
                for answer, expected in zip(together, alone, strict=True):
                    assert (answer.text, answer.history, answer.num_prompt_tokens, answer.num_new_tokens) == (
                        expected.text, expected.history, expected.num_prompt_tokens, expected.num_new_tokens
                    )  # fmt: skip
            assert session.ask(QUESTIONS[1]).text == alone[1].text
            assert [answer.text for answer in session.ask_together(QUESTIONS[:1])] == [alone[0].text]

    def test_logits_are_those_of_ask(self, model, clip, monkeypatch):
        seen: dict[int, list] = {}
        choose = Reply.choose

        def record(reply, row):
            seen.setdefault(id(reply), []).append(row.clone())
            return choose(reply, row)

        monkeypatch.setattr(Reply, "choose", record)
        with Session(model, clip, VideoConfig(), SHORT) as session:
            session.ask_together(QUESTIONS)
        together = [torch.cat(rows) for rows in seen.values()]
        for question, found in zip(QUESTIONS, together, strict=True):
            seen.clear()
            ask(model, clip, question, VideoConfig(), SHORT)
            (alone,) = seen.values()
            # measured: 1.1e-6 with logits of up to 2
            torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-5)

    def test_they_may_follow_a_conversation(self, model, clip):
        with Session(model, clip, VideoConfig(), SHORT) as session:
            history = session.ask(QUESTIONS[0]).history
            together = session.ask_together(QUESTIONS[1:3], history)
            assert [answer.history for answer in together] == [
                session.ask(question, history).history for question in QUESTIONS[1:3]
            ]

    def test_what_they_share_is_computed_once(self, model, clip, counts):
        texts = [model.tokenize(question)[-1] for question in QUESTIONS[:3]]
        with Session(model, clip, VideoConfig(), SHORT) as session:
            first, _, third = answers = session.ask_together(QUESTIONS[:3])
            num_shared = first.num_prompt_tokens - len(texts[0]) + 1  # "\n", then the questions part
            assert [answer.num_cached_tokens for answer in answers] == [num_shared] * 3
            assert counts["positions"][:2] == [num_shared, max(map(len, texts)) - 1]
            counts["positions"].clear()
            session.ask_together(QUESTIONS[:3])
            assert counts["positions"][0] == max(map(len, texts)) - 1
            counts["positions"].clear()
            assert session.ask(QUESTIONS[2]).text == third.text
            assert counts["positions"][0] == len(texts[2]) - 1
            session.ask_together(QUESTIONS[:3])
            counts["positions"].clear()
            assert session.ask(QUESTIONS[0]).text == first.text
            assert counts["positions"][0] == len(texts[0]) - 1
        assert (counts["tower"], counts["compressor"]) == (1, 1)

    def test_an_unfinished_stream_does_not_disturb_them(self, model, clip):
        with Session(model, clip, VideoConfig(), SHORT) as session:
            expected = [session.ask(question).text for question in QUESTIONS]
            stream = session.stream(QUESTIONS[1])
            next(stream)
            assert [answer.text for answer in session.ask_together(QUESTIONS)] == expected
            with pytest.raises(InputError, match="asked another question"):
                next(stream)

    def test_a_prefill_that_fails_leaves_the_session_usable(self, model, clip):
        with Session(model, clip, VideoConfig(), SHORT) as session:
            expected = [session.ask(question).text for question in QUESTIONS]
            session.ask(QUESTIONS[0], session.ask(QUESTIONS[1]).history)

            def fail(*call):
                raise MemoryError

            for layer in (0, 1):
                handle = model.language_model.model.layers[layer].register_forward_pre_hook(fail)
                with pytest.raises(MemoryError):
                    session.ask_together(QUESTIONS)
                handle.remove()
                assert [answer.text for answer in session.ask_together(QUESTIONS)] == expected

    def test_one_bad_question_refuses_all(self, model, clip, counts):
        with Session(model, clip, VideoConfig(), SHORT) as session:
            with pytest.raises(InputError, match="control token"):
                session.ask_together(["what is this?", "what is <image>?"])
            assert counts["positions"] == []
            assert session.ask_together([]) == []
        with pytest.raises(InputError, match="the session is closed"):
            session.ask_together(QUESTIONS)


def test_what_was_encoded_before_is_not_looked_at_again(model, clip, counts):
    encoded = Session(model, clip, VideoConfig(), SHORT).media
    expected = ask(model, clip, QUESTIONS[0], VideoConfig(), SHORT)
    looked = counts["tower"], counts["compressor"]
    answer = ask(model, encoded, QUESTIONS[0], VideoConfig(), SHORT)
    assert (answer.text, answer.num_prompt_tokens, answer.clip) == (
        expected.text, expected.num_prompt_tokens, clip
    )  # fmt: skip
    assert Session(model, encoded, VideoConfig(), SHORT).ask(QUESTIONS[0]).text == expected.text
    assert (counts["tower"], counts["compressor"]) == looked


def test_an_independent_question_after_a_conversation(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        first = session.ask(QUESTIONS[0])
        session.ask(QUESTIONS[1], first.history)
        assert session.ask(QUESTIONS[2]).text == ask(model, clip, QUESTIONS[2], VideoConfig(), SHORT).text


@every_media
def test_streaming_equals_not_streaming(name, model, clip):
    with Session(model, media(name, clip), VideoConfig(), SHORT) as session:
        for question in QUESTIONS:
            pieces = []
            answer = session.ask(question, on_text=pieces.append)
            assert "".join(pieces) == answer.text == "".join(session.stream(question))


def test_a_stream_that_was_not_read_to_its_end_leaves_the_session_usable(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        for _ in range(3):
            next(session.stream(QUESTIONS[1]))
            answer = session.ask(QUESTIONS[0])
            assert answer.text == ask(model, clip, QUESTIONS[0], VideoConfig(), SHORT).text


def test_two_streams_at_a_time_are_refused(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        stream = session.stream(QUESTIONS[0])
        next(stream)
        session.ask(QUESTIONS[1])
        with pytest.raises(InputError, match="asked another question, or closed, before this answer was"):
            list(stream)


def test_a_step_that_fails_leaves_the_session_usable(model, clip):
    expected = ask(model, clip, QUESTIONS[0], VideoConfig(), SHORT).text
    with Session(model, clip, VideoConfig(), SHORT) as session:
        session.ask(QUESTIONS[1])

        def fail(*call):
            raise MemoryError

        handle = model.language_model.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(MemoryError):
            session.ask(QUESTIONS[0])
        handle.remove()
        assert session.ask(QUESTIONS[0]).text == expected


def test_each_question_may_have_its_own_settings(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        assert (
            session.ask(QUESTIONS[0], generation_config=GenerationConfig(max_new_tokens=2)).num_new_tokens
            == 2
        )
        assert session.ask(QUESTIONS[0]).num_new_tokens > 2


def test_a_closed_session_is_refused(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        pass
    with pytest.raises(InputError, match="the session is closed: open another one"):
        session.ask(QUESTIONS[0])


def test_a_question_that_does_not_fit_is_refused_and_others_are_not(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        with pytest.raises(
            InputError, match=r"a prompt of \d+ positions and an answer of up to 600 need \d+ .* 512"
        ):
            session.ask(QUESTIONS[0], generation_config=GenerationConfig(max_new_tokens=600))
        assert session.ask(QUESTIONS[0]).num_new_tokens > 0


def test_what_cannot_be_looked_at_is_refused_when_the_session_opens(model, unchecked_shapes):
    with pytest.raises(VideoError, match=r"film\.mp4"):
        Session(model, "there/is/no/such/film.mp4")
    with pytest.raises(ImageError, match=r"picture\.png"):
        Session(model, Images("there/is/no/such/picture.png"))
    with pytest.raises(InputError, match=r"Images\(...\) or None for text only, got int"):
        Session(model, 3)


def test_times_of_the_session_and_of_each_question(model, clip):
    with Session(model, clip, VideoConfig(), SHORT) as session:
        assert list(session.timings_s) == ["decode", "preprocess", "vision_tower", "compression", "total"]
        for _ in range(2):
            timings_s = session.ask(QUESTIONS[0]).timings_s
            assert list(timings_s) == ["prefill", "generate", "total"]
            assert timings_s["prefill"] + timings_s["generate"] == pytest.approx(timings_s["total"])


def test_images_are_not_compressed_unless_asked_for(model, clip, counts):
    plain = ask(model, Images(PICTURE), QUESTIONS[0], VideoConfig(), SHORT)
    assert counts["compressor"] == 0
    assert (plain.compression, plain.compressions) == (None, ())
    assert plain.image_sizes == ((60, 90),)
    squeezed = ask(model, Images(PICTURE, compress=True), QUESTIONS[0], VideoConfig(), SHORT)
    assert counts["compressor"] == 1
    assert squeezed.compression.num_kept == squeezed.compression.num_input // 2
    assert squeezed.num_prompt_tokens < plain.num_prompt_tokens
    two = ask(model, Images(PICTURE, PICTURE, compress=True), QUESTIONS[0], VideoConfig(), SHORT)
    assert (len(two.compressions), two.compression) == (2, None)


def test_the_number_of_visual_tokens(model, clip):
    def num_visual(media, num_visuals):
        texts = model.tokenize(QUESTIONS[0], num_visuals)
        return ask(model, media, QUESTIONS[0], VideoConfig(), SHORT).num_prompt_tokens - sum(map(len, texts))

    assert num_visual(clip, 1) == 36 + 1
    assert num_visual(Images(Image.new("RGB", (75, 75))), 1) == 25 + 5 * 6
    assert num_visual(Images(PICTURE, PICTURE), 2) == 2 * (25 + 1)
    assert num_visual(None, 0) == 0
