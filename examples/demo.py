"""First look: emotions in a sentence, then a model of your own on the built-in benchmark.

python examples/demo.py
"""

from pathlib import Path

import carat

SENTENCE = "I am so relieved, but I miss him"
FOLDER = Path("demo")
WIDTH = 24


def main() -> None:
    print(f"1. The model that carat comes with reads: {SENTENCE}\n")
    try:
        read_sentence()
    except carat.CaratError as error:
        print(f"   left out: {error}")
    print("\n2. A model of your own, trained on the built-in benchmark of text, face and voice\n")
    train_model()


def read_sentence() -> None:
    """Print a bar for every emotion, and the words that carried those that were recognized."""
    predictor = carat.load("english-text", "cpu")
    prediction = predictor.predict_text([SENTENCE], words=2)[0]
    for label, score in sorted(prediction.scores.items(), key=lambda x: -x[1]):
        bar = "█" * round(score * WIDTH)
        words = ", ".join(prediction.words[label]) if label in prediction.labels else ""
        print(f"   {label:10}{score:.2f}  {bar:{WIDTH}}  {words and f'because of: {words}'}")


def train_model() -> None:
    """Train, compare with the best constant answer, and name the pictures."""
    store = carat.make_synthetic(FOLDER / "store", overwrite=True)
    run = carat.train(carat.load_experiment(preset="small"), store, FOLDER / "run", overwrite=True)
    report = carat.evaluate(run, store, "test", floors=True)
    f1, (low, high) = report.metrics.micro_f1, report.intervals["micro_f1"]
    print(f"\n   {report.samples} test samples: micro-F1 {f1:.3f} ({low:.3f} to {high:.3f})")
    print(f"   floor, the same answer for all: {report.floors['prior'].values['micro_f1']:.3f}")
    prediction = carat.load(run, "cpu").predict(store[int(store.indices("test")[0])].features, raw=False)
    evidence = ", ".join(
        f"{label} (mostly by {prediction.attribution[label]})" for label in prediction.labels
    )
    print(f"   first of them: {evidence or 'no emotion'}")
    print(
        f"   pictures: {run.folder / 'curves.svg'} (training), {run.folder / 'reliability.svg'} (calibration)"
    )


if __name__ == "__main__":
    main()
