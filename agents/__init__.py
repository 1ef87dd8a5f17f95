"""Agents: plain async callables over a ChatModel, with their prompts as files."""

from coa.agents.grounding import Grounding, ground
from coa.agents.manager import Manager, ManagerReply
from coa.agents.prompting import PromptTemplate
from coa.agents.worker import Worker, WorkerReply

__all__ = ["Grounding", "Manager", "ManagerReply", "PromptTemplate", "Worker", "WorkerReply", "ground"]
