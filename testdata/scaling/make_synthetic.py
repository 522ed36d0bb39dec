"""Writes synthetic.csv: 60 runs around Epoch's law, with noise and outliers that every language can repeat.

    python make_synthetic.py > synthetic.csv
"""

E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658


def main():
    print("N,D,loss")
    for i in range(60):
        n = round(2e7 * 1.9 ** (i % 10))
        d = round(n * 4 * 2.3 ** (i // 10))
        noise = (i * 7919 % 2003) / 2003 - 0.5
        outlier = 0.05 if i in (13, 41) else 0.0
        loss = (E + A / n**ALPHA + B / d**BETA) * (1 + 0.01 * noise + outlier)
        print(f"{n},{d},{loss:.6f}")


if __name__ == "__main__":
    main()
