"""Wrong uses, one a line: what somebody types, and after ``=>`` the words of it that the message must name.

Each is refused: on the command line with exit code 2, in Python with an :class:`isthmus.IsthmusError`.
"""

from __future__ import annotations

NETS = """
import sys
import torch
from torch import nn
WEIGHTS = "weights.safetensors"
def build(width=10): return nn.Sequential(nn.Flatten(), nn.Linear(64, width))
def five(): return build(5)
def hundred(): return build(100)
def colour(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
def none(): return None
def text(): return "a model"
def raises(): raise ValueError("no weights here")
def leaves(): sys.exit(3)
def needs(path): return build()
def missing(): import a_package_that_is_not_there
class Answer(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layers, self.wrap = build(), wrap
    def forward(self, x): return self.wrap(self.layers(x))
def features(): return nn.Conv2d(1, 3, 3)
def classes(): return Answer(lambda logits: logits.argmax(1))
def nan(): return Answer(lambda logits: logits * float("nan"))
def words(): return Answer(lambda logits: "cat")
def nothing(): return Answer(lambda logits: None)
def empty(): return Answer(lambda logits: {})
def mean(): return Answer(lambda logits: logits.mean(0, keepdim=True))
def one(): return Answer(lambda logits: logits[:, :1].flatten()[:1])
def fails(): return Answer(lambda logits: 1 / 0)
def no_pair(): return torch.rand(4, 1, 8, 8)
def unequal(): return torch.rand(4, 1, 8, 8), torch.arange(3)
def bright(): return torch.rand(20, 1, 8, 8) * 255, torch.arange(20) % 10
def no_images(): return torch.rand(0, 1, 8, 8), torch.arange(0)
def without_test(): return {"train": (torch.rand(4, 1, 8, 8), torch.arange(4))}
value = 3
"""

COMMANDS = """
--- the command itself
audt run => audt
audit => run --model
attack => run --model
verify => RESULT
report => RUN
compare run => AFTER
bundle => RUN
export => RUN
export run => --formats
merge => SHARD
merge part => --out
train => RECIPE
audit run extra => extra
audit run --epsilon 0.1 => --epsilon
audit run --thread linf:0.1 => --thread
audit run --n => --n
list attackz => attackz
list attacks pgd => pgd
study nothing => nothing
study ceb/fashon => ceb/fashon
study closer-look/figure-1 --scale huge => huge
study closer-look/figure-1 seeds=0 => seeds
study closer-look/figure-1 sedes=2 => sedes
study closer-look/figure-1 --jobs 0 => --jobs 0

--- models
audit nowhere => nowhere
audit file => file
audit images => images
audit run --model nets:build => --model
audit run --weights weights.safetensors => --weights
audit run --preset imagenet => --preset
audit --model nets:build => --data
audit --model nets --data digits => nets
audit --model nets: --data digits => nets:
audit --model :build --data digits => :build
audit --model netz:build --data digits => netz
audit --model nets:biuld --data digits => biuld
audit --model nets:value --data digits => value
audit --model nets:none --data digits => none
audit --model nets:text --data digits => text str
audit --model nets:raises --data digits => raises no weights here
audit --model nets:leaves --data digits => leaves
audit --model nets:needs --data digits => needs path
audit --model nets:missing --data digits => a_package_that_is_not_there
audit --model nets:build,width=five --data digits => width five
audit --model nets:build,depth=3 --data digits => depth
audit --model nets:build,width --data digits => width
audit --model nets.py:biuld --data digits => biuld
audit --model other.py:build --data digits => other.py
audit --model syntax.py:build --data digits => syntax.py
audit --model nowhere.onnx --data digits => nowhere.onnx
audit --model bad.onnx --data digits => bad.onnx
audit --model bad.pt --data digits => bad.pt
audit --model bad.pt2 --data digits => bad.pt2
audit --model state.pt --data digits => state.pt
audit --model weights.safetensors --data digits => weights.safetensors
audit --model model.h5 --data digits => model.h5
audit --model timn:resnet18 --data digits => timn
audit --model nets:build --weights nowhere.pt --data digits => nowhere.pt
audit --model nets:build --weights bad.pt --data digits => bad.pt
audit --model nets:build --weights bad.safetensors --data digits => bad.safetensors
audit --model nets:build --weights images --data digits => images
audit --model nets:build --weights recipe.yaml --data digits => recipe.yaml
audit --model nets:five --weights weights.safetensors --data digits => weights.safetensors 1.weight
audit --model nets:features --weights weights.safetensors --data digits => weights.safetensors weight
audit --model ensemble: --data digits => ensemble:
audit --model ensemble:nets:build --data digits => ensemble:nets:build
audit --model ensemble:nets:build,nets:build --data digits => nets:build twice
audit --model ensemble:nets:build,nets:five --data digits => 5 10
audit --model ensemble:run,nowhere --data digits => nowhere
audit --model nets:build --preset imagnet --data digits => imagnet imagenet
audit --model nets:build --preset imagenet --data digits => 3 1 channels=3
audit --model nets:build --preset mnist --mean 0.5 --std 0.5 --data digits => --preset --mean
audit --model nets:build --mean 0.5 --data digits => mean standard deviation
audit --model nets:build --std 0.5 --data digits => mean standard deviation
audit --model nets:build --mean 0.5 --std 0 --data digits => 0
audit --model nets:build --mean 0.5 --std nan --data digits => nan
audit --model nets:build --mean 0.5,0.5 --std 0.5 --data digits => 2 1
audit --model nets:build --mean half --std 0.5 --data digits => --mean half
audit --model nets:build --size 0 --data digits => --size 0
audit --model nets:build --size 32 --data digits => 64
audit --model nets:colour --data digits => 192 64
audit --model nets:features --data digits => 3, 6, 6
audit --model nets:classes --data digits => logits
audit --model nets:nan --data digits => NaN
audit --model nets:words --data digits => str
audit --model nets:nothing --data digits => None
audit --model nets:empty --data digits => dict
audit --model nets:mean --data digits => (1, 10)
audit --model nets:fails --data digits => division by zero
audit --model nets:five --data digits => 5
attack --model nets:five --data digits --suite fgsm => 5

--- data
audit run --data digit => digit digits
audit run --data mnsit => mnsit mnist
audit run --data mnist,train => train
audit run --data digits,limit=many => limit
audit run --data digits:train => digits
audit run --data folder => path
audit run --data folder:nowhere => nowhere
audit run --data folder:file => file
audit run --data folder:empty => empty
audit run --data folder:flat => flat
audit run --data folder:images,channels=2 => channels 2
audit run --data folder:images,size=big => size big
audit run --data folder:images,size=-1 => size -1
audit run --data folder:images,colour=1 => colour
audit run --data folder:images,test_fraction=2 => test_fraction 2
audit run --data folder:broken => broken 0.png
audit run --data folder:mixed => mixed
audit run --data csv:nowhere.csv => nowhere.csv
audit run --data csv:images => images
audit run --data csv:empty.csv => empty.csv
audit run --data csv:columns.csv => columns.csv
audit run --data csv:lost.csv => lost.png
audit run --data nets:nothing_like_it => nothing_like_it
audit run --data nets:value => value
audit run --data nets:raises => raises
audit run --data nets:no_pair => labels
audit run --data nets:unequal => 4 3
audit run --data nets:bright => bright [0,
audit run --data nets:no_images => no_images
audit run --data nets:without_test => without_test test
audit run --data netz:test => netz
audit run --data imagenet:nowhere => nowhere
audit run --n 0 => --n 0
audit run --n -5 => --n -5
audit run --n ten => --n ten
audit run --n 1e2 => --n 1e2
audit run --classes 3 => --classes 3
audit run --classes cat,dog => cat
audit run --classes 1,1 => 1

--- threats, checks and limits
audit run --threat 0.1 => 0.1
audit run --threat linf => linf
audit run --threat linf: => linf:
audit run --threat linf:8/0 => linf:8/0
audit run --threat linf:-0.1 => -0.1
audit run --threat linf:0 => 0
audit run --threat linf:nan => nan
audit run --threat linf:8 => 8
audit run --threat l0:3 => l0
audit run --threat l2=0.5 => l2=0.5
audit run --threat Linf8/255 => Linf8/255
audit run --threat linf:0.1,0.2 => linf:0.1,0.2
audit run --checks acuracy => acuracy accuracy
audit run --checks accuracy,,calibration => '' calibration
audit run --checks accuracy,accuracy => accuracy
audit run --checks accuracy;calibration => accuracy;calibration
audit run --checks calibration:2 => calibration 2
audit run --checks dataset_transfer => dataset_transfer
audit run --checks dataset_transfer:nowhere => nowhere
audit run --checks corruptions:rain => rain
audit run --checks accuracy --claimed 53% => claim
audit run --claimed 530% => 530%
audit run --claimed -1 => -1
audit run --claimed most => most
audit run --checks accuracy --passes 100 => passes
audit run --passes 0 => --passes 0
audit run --max-queries 0 => --max-queries 0
audit run --max-queries 10 --executor ray => max_queries
audit run --fail-under 40% => 40%
audit run --fail-under robust => robust
audit run --fail-under robust=140% => 140%
audit run --fail-under robst=40% => robst robust
audit run --fail-under robust=40%,robust=50% => robust=40%,robust=50%
audit run --fail-under robust=half => half
audit run --seed -1 => --seed -1
audit run --seed 99999999999 => --seed 99999999999
audit run --seed one => --seed one
audit run --batch-size 0 => --batch-size 0
audit run --jobs 2 => --jobs
audit run --executor slurm => slurm
audit run --address auto => --address
audit run --executor ray --worker-gpus -1 => -1
audit run --step 7 => 7
audit --model nets:build --data digits --step 7 => step
audit run --out file --n 10 --checks accuracy => file
audit run --out file/below --n 10 --checks accuracy => file
audit run --n 10 --checks accuracy --junit images => images
audit run --n 10 --checks accuracy --sarif file/below.sarif => file

--- attacks
attack run --suite standart => standart standard
attack run --suite , => ,
attack run --suite fgsm,pdg => pdg pgd
attack run --suite pgd:many => pgd many
attack run --suite pgd:0 => pgd 0
attack run --suite pgd:-5 => pgd -5
attack run --suite square:1.5 => square 1.5
attack run --suite transfer:nowhere.safetensors => nowhere.safetensors
attack run --suite fab --threat l0:1 => l0
attack run --ci-half-width 0 => 0
attack run --ci-half-width 200% => 200%
attack run --ci-half-width narrow => narrow
attack run --shard 0/4 => 0/4
attack run --shard 5/4 => 5/4
attack run --shard 3 => 3
attack run --shard 1/4 --max-queries 100 => --shard --max-queries
attack run --jobs 0 => --jobs 0
attack run --out images => images
attack run --suite fgsm --n 4 --out file => file
attack run --suite fgsm --n 4 --out w.safetensors => w.safetensors --force

--- what was stored
verify nowhere.safetensors run => nowhere.safetensors
verify file run => file
verify weights.safetensors run => weights.safetensors
verify w.safetensors => run --model
verify w.safetensors nowhere => nowhere
verify w.safetensors run --n 5 => 5
verify w.safetensors run --threat l2:1 => l2
verify w.safetensors run --data mnsit => mnsit
verify w.safetensors --model nets:five => 5
verify bad.zip run => bad.zip
report nowhere => nowhere
report images => images
report run nowhere => nowhere
report run --out images => images
compare run nowhere => nowhere
compare nowhere run => nowhere
compare run images => images
compare run run --markdown images => images
bundle nowhere => nowhere
bundle images => images
bundle run --out file => file --force
bundle file --out e.zip => file
export run --formats junit,pdf => pdf
export run --formats junti => junti junit
export run --formats , => ,
export nowhere --formats json => nowhere
export run --formats json --out file => file
export run --formats json --fail-under clean=x => clean=x
merge w.safetensors --out whole.safetensors => w.safetensors
merge nowhere.safetensors --out whole.safetensors => nowhere.safetensors
merge file file --out whole.safetensors => file

--- recipes
train nowhere.yaml => nowhere.yaml
train images => images
train bad.onnx => bad.onnx
train list.yaml => list.yaml
train tabs.yaml => tabs.yaml
train recipe.yaml seed => seed
train recipe.yaml =3 => =3
train recipe.yaml seed=one => seed one
train recipe.yaml seed=-1 => seed -1
train recipe.yaml sead=1 => sead seed
train recipe.yaml training.epochs=0 => training.epochs 0
train recipe.yaml training.epochs=1.5 => training.epochs 1.5
train recipe.yaml training.epoch=3 => training epoch epochs
train recipe.yaml training.batch_size=-4 => training.batch_size -4
train recipe.yaml training.optimizer.lr=0 => training.optimizer.lr 0
train recipe.yaml training.optimizer.lr=fast => training.optimizer.lr fast
train recipe.yaml training.optimizer=adamm => adamm
train recipe.yaml objective=cebb => cebb ceb
train recipe.yaml objective.rho=high => objective rho high
train recipe.yaml objective.rho=nan => objective rho nan
train recipe.yaml objective.beta=0.1 => beta
train recipe.yaml model.backbone=resnett => resnett
train recipe.yaml model.dim=0 => model.dim 0
train recipe.yaml data=mnsit => mnsit
train recipe.yaml data=folder => path
train recipe.yaml data.train_limit=0 => train_limit 0
train recipe.yaml training.precision=float8 => float8
train recipe.yaml training.attack=none => attack
train recipe.yaml name= => name
train recipe.yaml name=a/b => a/b
train recipe.yaml a.b.c=1 => a
train recipe.yaml --out file => file
"""

CALLS = """
--- models
audit(None, x, y, "linf:0.1") => NoneType
audit("resnet18", x, y, "linf:0.1") => str
audit(nn.Linear, x, y, "linf:0.1") => Linear
audit(lambda x: x.flatten(1), x, y, "linf:0.1") => function
audit(nn.Linear(3, 10), x, y, "linf:0.1") => 3x10
audit(nets.five(), x, y, "linf:0.1") => 5
audit(nets.nan(), x, y, "linf:0.1") => NaN
audit(nets.mean(), x, y, "linf:0.1") => 1
robust_accuracy(nets.classes(), x, y, "linf:0.1") => labels
robust_accuracy(nets.words(), x, y, "linf:0.1") => str
robust_accuracy(nets.nothing(), x, y, "linf:0.1") => None
robust_accuracy(nets.empty(), x, y, "linf:0.1") => dict
robust_accuracy(nets.fails(), x, y, "linf:0.1") => division by zero
robust_accuracy(nets.features(), x, y, "linf:0.1") => 3, 6, 6
load_model("nets:biuld") => biuld
load_model(3) => 3
load_model(None) => None
load_model("") => ''
load_model("nets:build", weights="nowhere.pt") => nowhere.pt
load_model("nets:build", mean=0.5) => mean standard
load_model("nets:build", mean="0.5", std=0.5) => 0.5
load_model("nets:build", size=-1) => -1
load_model("nets:build", size="big") => big
normalized(model, "imagnet") => imagnet
normalized(model, 0.5, 0) => 0
normalized(model, [], []) => mean
normalized(None, 0.5, 0.5) => None
black_box(None) => None
black_box(model) => module
black_box("predict") => predict
robust_accuracy(black_box(lambda a: a.argmax()), x, y, "linf:0.1", ["square:10"]) => shape ()
robust_accuracy(black_box(lambda a: "cat"), x, y, "linf:0.1", ["square:10"]) => cat
ensemble([]) => none
ensemble(model) => Sequential
ensemble([model, "resnet18"]) => str
robust_accuracy(ensemble([model, nets.five()]), x, y, "linf:0.1") => 5 10
mc_dropout(model) => Dropout
mc_dropout(None) => None
mc_dropout(dropped, samples=0) => 0
mc_dropout(dropped, samples=1.5) => 1.5
load("nowhere") => nowhere
load("images") => images
load(3) => 3

--- data
audit(model, None, None, "linf:0.1") => None
audit(model, x, None, "linf:0.1") => labels
audit(model, x, y[:3], "linf:0.1") => 3 20
audit(model, x[0], y, "linf:0.1") => 1, 8, 8
audit(model, x[:0], y[:0], "linf:0.1") => 0
audit(model, x * 255, y, "linf:0.1") => [0, 1]
audit(model, x - 0.5, y, "linf:0.1") => [0, 1]
audit(model, (x * 255).long(), y, "linf:0.1") => int64
audit(model, x * float("nan"), y, "linf:0.1") => nan
audit(model, x, y.float(), "linf:0.1") => float32
audit(model, x, y - 1, "linf:0.1") => -1
audit(model, x, y + 1, "linf:0.1") => 10
audit(model, x, onehot, "linf:0.1") => 20, 10
audit(model, x, ["cat"] * 20, "linf:0.1") => str
audit(model, "images", y, "linf:0.1") => str
audit(model, {"x": x}, y, "linf:0.1") => dict
audit(model, x.to_sparse(), y, "linf:0.1") => sparse
audit(model, x.to("meta"), y, "linf:0.1") => meta
audit(model, x.repeat(1, 3, 1, 1), y, "linf:0.1") => 192 64
audit(model, x.permute(0, 2, 3, 1)[:, :4], y, "linf:0.1") => 32
audit(model, TensorDataset(x), None, "linf:0.1") => label
audit(model, DataLoader(TensorDataset(x * 255, y)), None, "linf:0.1") => [0, 1]
audit(model, (x, y), y, "linf:0.1") => tuple
audit(model, [], [], "linf:0.1") => 0
robust_accuracy(model, x.tolist()[:2] + [[[0.5]]], y[:3], "linf:0.1") => list
robust_accuracy(model, x, y.bool(), "linf:0.1") => bool
loading.load("digit") => digit
loading.load(3) => 3

--- options
audit(model, x, y) => threat
audit(model, x, y, 0.1) => 0.1
audit(model, x, y, "0.1") => 0.1
audit(model, x, y, ("linf", 0.1)) => ('linf', 0.1)
audit(model, x, y, "linf:0.1", "acuracy") => acuracy
audit(model, x, y, "linf:0.1", 3) => 3
audit(model, x, y, "linf:0.1", [3]) => 3
audit(model, x, y, "linf:0.1", ["acuracy"]) => acuracy accuracy
audit(model, x, y, "linf:0.1", [{"name": "accuracy", "steps": 3}]) => steps
audit(model, x, y, "linf:0.1", [{"steps": 3}]) => name
audit(model, x, y, "linf:0.1", ["accuracy"], "fast") => fast
audit(model, x, y, "linf:0.1", ["accuracy"], None) => None
audit(model, x, y, "linf:0.1", claimed=53) => 53
audit(model, x, y, "linf:0.1", claimed="lots") => lots
audit(model, x, y, "linf:0.1", claimed=[0.5]) => 0.5
audit(model, x, y, "linf:0.1", seed=-1) => -1
audit(model, x, y, "linf:0.1", seed="0") => '0'
audit(model, x, y, "linf:0.1", seed=1.5) => 1.5
audit(model, x, y, "linf:0.1", out=3) => 3
audit(model, x, y, "linf:0.1", ["accuracy"], out="file") => file
audit(model, x, y, "linf:0.1", options={"passes": 3}) => dict
audit(model, x, y, "linf:0.1", options=AuditOptions(passes=0)) => 0
audit(model, x, y, "linf:0.1", options=AuditOptions(passes="many")) => many
audit(model, x, y, "linf:0.1", options=AuditOptions(batch_size=0)) => 0
audit(model, x, y, "linf:0.1", options=AuditOptions(max_queries=-1)) => -1
audit(model, x, y, "linf:0.1", options=AuditOptions(indices=torch.arange(3))) => 3 20
audit(model, x, y, "linf:0.1", options=AuditOptions(trained_on=x)) => trained
audit(model, x, y, "linf:0.1", options=AuditOptions(trained_on=(x, y[:2]))) => 2 20
audit(model, x, y, "linf:0.1", ["accuracy"], progress="bar") => bar
Linf("0.1") => 0.1
Linf(-1) => -1
Linf(0) => 0
Linf(float("nan")) => nan
L2(None) => None
L1(float("inf")) => inf
robust_accuracy(model, x, y, "linf:0.1", "fastest") => fastest
robust_accuracy(model, x, y, "linf:0.1", []) => attack
robust_accuracy(model, x, y, "linf:0.1", None) => None
robust_accuracy(model, x, y, "linf:0.1", [None]) => None
robust_accuracy(model, x, y, "linf:0.1", ["pgd:many"]) => many
robust_accuracy(model, x, y, "linf:0.1", [{"name": "pgd", "stepz": 3}]) => stepz
robust_accuracy(model, x, y, "linf:0.1", [{"name": "pgd", "steps": -3}]) => -3
robust_accuracy(model, x, y, "linf:0.1", [attacks.PGD]) => PGD
robust_accuracy(model, x, y, "linf:0.1", "fgsm", batch_size=0) => 0
robust_accuracy(model, x, y, "linf:0.1", "fgsm", batch_size="8") => 8
robust_accuracy(model, x, y, "linf:0.1", "fgsm", jobs=0) => 0
robust_accuracy(model, x, y, "linf:0.1", "fgsm", seed=None) => None
robust_accuracy(model, x, y, "linf:0.1", "fgsm", options=RunOptions(targets=y)) => target
robust_accuracy(model, x, y, "linf:0.1", "fgsm", options=RunOptions(targets=y[:2])) => 2 20
robust_accuracy(model, x, y, "linf:0.1", "fgsm", options=RunOptions(ci_half_width=2)) => 2
robust_accuracy(model, x, y, "linf:0.1", "fgsm", options=RunOptions(save_to="images")) => images
robust_accuracy(model, x, y, "linf:0.1", "fgsm", options=RunOptions(optimized_model="fast")) => str
attacks.PGD(steps=0) => 0
attacks.PGD(step=3) => step
attacks.PGD(steps=3).bind(model, -0.1) => -0.1
attacks.PGD(steps=3).bind(None, 0.1) => None
attacks.PGD(steps=3).bind(model, "much") => much
attacks.PGD(steps=3).bind(model, 0.1)(x * 255, y) => [0, 1]
attacks.PGD(steps=3).bind(model, 0.1)(x, y[:3]) => 3 20
attacks.PGD(steps=3).bind(model, 0.1)(x, y + 1) => 10
attacks.curve(model, x, y, [], ["fgsm"]) => threat
attacks.curve(model, x, y, "linf", ["fgsm"]) => linf
attacks.minimal_norms(model, x, y, "l0", ["fmn:5"]) => l0

--- other libraries' calls
AutoAttack(model, norm="L0", eps=0.1) => L0
AutoAttack(model, norm="Linf", eps=-1) => -1
AutoAttack(model, norm="Linf", eps="8/255x") => 8/255x
AutoAttack(model, norm="Linf", eps=0.1, version="full") => full
AutoAttack(model, norm="Linf", eps=0.1, version="custom", attacks_to_run=["pdg"]).run_standard_evaluation(x, y) => pdg
AutoAttack(model, norm="Linf", eps=0.1, version="custom").run_standard_evaluation(x, y) => attacks_to_run
AutoAttack(model, norm="Linf", eps=0.1, is_tf_model=True) => is_tf_model
AutoAttack(None, norm="Linf", eps=0.1) => None
AutoAttack(model, norm="Linf", eps=0.1).run_standard_evaluation(x * 255, y) => [0, 1]
benchmark(model, dataset="cifar11", eps=0.1) => cifar11
benchmark(model, dataset="digits", threat_model="L0", eps=0.1) => L0
benchmark(model, dataset="digits") => eps
benchmark(model, n_examples=0, dataset="digits", eps=0.1) => 0
benchmark(model, dataset="digits", eps=0.1, to_disk=True) => model_name
benchmark("Standard", dataset="digits", eps=0.1) => str

--- stored results, tracking and training
compare("nowhere", "run") => nowhere
compare("run", "images") => images
compare(None, "run") => None
compare("run", 3) => 3
log_to("mlfow", "run") => mlfow
log_to(None, "run") => None
log_to("tensorboard:board", "nowhere") => nowhere
log_to("tensorboard:board", model) => Sequential
log_to("tensorboard:board", None) => None
verify("nowhere.safetensors", model) => nowhere.safetensors
verify("file", model) => file
verify("w.safetensors", None) => None
verify("w.safetensors", nets.five()) => 5
verify(3, model) => 3
attacks.RobustResult.load("file") => file
attacks.RobustResult.load("nowhere") => nowhere
train("nowhere.yaml") => nowhere.yaml
train({"data": "digits"}) => model
train({}) => data
train(None) => None
train("recipe.yaml", ["sead=1"]) => sead
bottleneck(None, 10) => None
bottleneck(model, 10, "cebb") => cebb
Rho("high") => high
audit(model, x, y, "linf:0.1", ["accuracy"]).verdict => diagnosis
audit(model, x, y, "linf:0.1", ["accuracy"]).citation => diagnosis
"""


def cases(text: str) -> list[tuple[str, str, str]]:
    """Area, what is typed, and what the message must name, of each line of a table."""
    found, area = [], ""
    for line in filter(None, text.splitlines()):
        if line.startswith("--- "):
            area = line[4:]
            continue
        typed, _, named = line.rpartition(" => ")
        found.append((area, typed, named))
    return found
