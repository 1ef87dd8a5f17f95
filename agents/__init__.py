"""Agents: plain async callables over a ChatModel, with their prompts as files."""

from coa.agents.checker import Checker
from coa.agents.fact_manager import FactManager
from coa.agents.fact_worker import FactWorker
from coa.agents.grounding import Grounding, ground
from coa.agents.lexical_checker import LexicalChecker
from coa.agents.manager import Manager, ManagerReply
from coa.agents.prompting import PromptTemplate
from coa.agents.quoting import QuotingManager, QuotingWorker, quotes_of
from coa.agents.references import Reference
from coa.agents.verification import QuoteVerifier, Verified
from coa.agents.worker import Worker, WorkerReply

__all__ = [
    "Checker",
    "FactManager",
    "FactWorker",
    "Grounding",
    "LexicalChecker",
    "Manager",
    "ManagerReply",
    "PromptTemplate",
    "QuoteVerifier",
    "QuotingManager",
    "QuotingWorker",
    "Reference",
    "Verified",
    "Worker",
    "WorkerReply",
    "ground",
    "quotes_of",
]
