# The public names, each once: what follows is also read when jaxrl is imported. The agents' are in agents/table.py.

from jaxrl import agents as agents
from jaxrl import analysis as analysis
from jaxrl import envs as envs
from jaxrl import exploration as exploration
from jaxrl import losses as losses
from jaxrl import networks as networks
from jaxrl import planning as planning
from jaxrl import replay as replay
from jaxrl import returns as returns
from jaxrl import runs as runs
from jaxrl import transforms as transforms
from jaxrl.agents.table import *  # noqa: F403
from jaxrl.analysis.results import Results as Results
from jaxrl.checks import JaxrlError as JaxrlError
from jaxrl.envs import check_env as check_env
from jaxrl.envs import make as make
from jaxrl.evaluation import evaluate as evaluate
from jaxrl.loop import TrainState as TrainState
from jaxrl.loop import init_train as init_train
from jaxrl.loop import train as train
from jaxrl.loop import train_interval as train_interval
from jaxrl.loop import train_step as train_step
from jaxrl.runs.sweep import sweep as sweep
from jaxrl.types import Agent as Agent
from jaxrl.types import Box as Box
from jaxrl.types import Discrete as Discrete
from jaxrl.types import Env as Env
from jaxrl.types import HostEnv as HostEnv
from jaxrl.types import Outcome as Outcome
from jaxrl.types import Role as Role
from jaxrl.types import Spec as Spec
from jaxrl.types import Transition as Transition
from jaxrl.types import box as box

__version__: str
