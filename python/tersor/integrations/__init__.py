"""Tersor inside serving engines and transfer libraries. Each module needs its engine and is imported by name:

`lmcache` (serde), `sglang` (HiCache storage), `sglang_staging` (prefill to decode), `vllm_connector` (prefill to decode),
`vllm_tier` (offloading), `nixl` (one-sided transfers). Importing this package imports none of them.
"""
