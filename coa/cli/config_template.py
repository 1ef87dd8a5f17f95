"""The file that `coa config init` writes: every setting at its default, explained."""

from __future__ import annotations

import json

__all__ = ["template"]

_LONGEST = 110

_HEAD = """\
## Settings of coa. Precedence: flags, COA_* variables, this file (./coa.yaml), the user's own file, defaults.
## A line that begins with "# " is a setting at its default, or an example: take the "# " away to use it.
## `coa config show --origin` says where each value comes from, `coa config validate` checks them all.
"""

_SECTIONS: dict[str, dict[str, str]] = {
    "Where things are": {
        "home": "runs, models, documents and kept replies",
        "redis_url": "redis://host:6379/0; rate limits and kept replies are shared there; null: no Redis",
        "checkpoints": "postgresql:// or redis:// for the graphs' checkpoints; null: in each run's folder",
    },
    "Which model": {
        "model": "a model_list name, a catalogue name (coa models list), a GGUF file, or a litellm model",
        "window": "tokens in and out; null: what the model serves",
        "n_threads": "of the embedded engine; null: all cores",
        "temperature": "0: the same answer each time",
    },
    "How a document is read": {
        "strategy": "coa graph list shows them",
        "chunk_tokens": "of one chunk; null: what the window leaves",
        "question_tokens": "room for the question; chunk borders move with it",
        "notes": "paper: the model's own prose; structured: facts with sentences; quotes: sentences; auto: by size",
        "note_tokens": "of a worker's notes; null: by the window",
        "answer_tokens": "null: by the window",
        "passes": "readings of the chain; 2: once more with the notes of the first",
        "demos": "recycled: question and answer pairs made from the document",
        "paths": "chains of self-consistency and permutation",
        "choose": "judge or vote, among several chains' answers",
        "rounds": "of retrieving evidence, at most (alr2)",
        "top_k": "passages that rag shows, chunks that a preselection keeps",
        "preselect": "auto: only the chunks that a ranking puts first, in long documents; never; always (alr2)",
        "review": "true: stop before the answer, so that evidence can be struck out (alr2)",
        "verify": "look up every quote that a model wrote itself",
        "strict": "true: a quote that is not in the source is an error (exit code 8)",
        "on_worker_failure": "skip: go on without that chunk and say so; fail: stop",
    },
    "Calls": {
        "retries": "of one call, after the first attempt",
        "timeout_s": "of one call; null: scaled to its tokens",
        "idle_timeout_s": "how long a server may fall silent in the middle of a reply",
        "max_parallel_calls": "under way at once",
        "response_cache": "give the kept reply to the very same prompt again, without a call",
        "response_cache_bytes": "kept at most; what was not used for longest goes first",
        "kv_cache": "keep what engines computed for a chunk, and use it again",
        "kv_cache_bytes": "saved states on disk, at most",
        "kv_redis_bytes": "saved states in Redis, for engines on other hosts; 0: none",
    },
    "What a run may use": {
        "max_calls": "null: no limit",
        "max_tokens_total": "in and out; null: no limit",
        "max_cost_usd": "null: no limit",
    },
    "Documents": {
        "reader": "by name, as docling (layout and OCR); null: by content",
        "max_document_bytes": "larger documents are refused",
    },
}

_ROLES = """\

## Models of single roles: worker, manager, judge, retriever, reasoner, structurizer, checker. `model` plays the
## others. Chunks are cut for the smallest window among them.
# roles:
#   manager: writer
"""

_MODELS = """\

## Models, in the form of litellm's proxy: entries of one model_name are deployments that stand in for each other.
## "os.environ/NAME" is read when a call needs it. Of litellm_params, a model "coa/<catalogue name or .gguf file>" is
## an engine that coa starts itself. Of model_info coa reads, next to litellm's own keys:
##   kind               llama_server, vllm, sglang, ollama or hosted; told by provider, else found out by asking
##   max_input_tokens   the window; engines that tell theirs are asked, and a smaller one than this is an error
##   input_cost_per_token, output_cost_per_token   dollars; without them litellm's list, else the price is unknown
##   tokenizer          path to a tokenizer.json, "server" (the engine's own), or "estimate"
# model_list:
#   - model_name: reader
#     litellm_params:
#       model: hosted_vllm/Qwen/Qwen2.5-7B-Instruct
#       api_base: http://127.0.0.1:8000/v1
#   - model_name: reader
#     litellm_params:
#       model: ollama_chat/qwen2.5
#       api_base: http://127.0.0.1:11434
#     model_info:
#       max_input_tokens: 16384
#   - model_name: writer
#     litellm_params:
#       model: openai/gpt-5-mini
#       api_key: os.environ/OPENAI_API_KEY
#       rpm: 500
#     model_info:
#       input_cost_per_token: 2.5e-7
#       output_cost_per_token: 2.0e-6

## litellm's Router: fallbacks from group to group, cooldown_time, allowed_fails, routing_strategy, …
# router_settings:
#   fallbacks:
#     - reader: [writer]

## Of litellm's own settings those about calls: success_callback, failure_callback, callbacks, ssl_verify,
## turn_off_message_logging, modify_params, fallbacks, …; those for the proxy's server are named in a warning.
# litellm_settings:
#   turn_off_message_logging: true
"""

_PROFILES = """\

## Sets of settings by name, chosen with --profile or COA_PROFILE; they go over what stands above.
# profiles:
#   fast:
#     model: reader
#     note_tokens: 200
"""


def template() -> str:
    """A config file with every setting of `Settings` commented out: plain ones at their defaults, lists by example."""
    from coa.config import Settings

    lines = [_HEAD]
    for title, keys in _SECTIONS.items():
        lines.append(f"\n## {title}\n")
        for key, about in keys.items():
            default = "~/coa" if key == "home" else json.dumps(Settings.model_fields[key].default)
            line = f"# {key}: {default}".ljust(36) + f"  # {about}\n"
            lines.append(line if len(line) <= _LONGEST else f"##   {about}\n# {key}: {default}\n")
    limits = Settings.model_fields["reading_limits"].get_default(call_default_factory=True)
    lines.append("## Bounds against hostile documents; what is over one of them is refused.\n# reading_limits:\n")
    lines += [f"#   {key}: {json.dumps(limit)}\n" for key, limit in limits.items()]
    return "".join([*lines, _ROLES, _MODELS, _PROFILES])
