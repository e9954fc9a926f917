package event

// The active codes of ISO 4217 by their number of decimals. Units without
// decimals of their own (XAU, XDR, XTS, XXX, …) are no money here. BGN left
// the list in 2026 and stays for the orders booked in it before.
const (
	decimals0 = "BIFCLPDJFGNFISKJPYKMFKRWPYGRWFUGXUYIVNDVUVXAFXOFXPF"
	decimals2 = "AEDAFNALLAMDAOAARSAUDAWGAZNBAMBBDBDTBGNBMDBNDBOBBOVBRLBSDBTNBWPBYNBZD" +
		"CADCDFCHECHFCHWCNYCOPCOUCRCCUPCVECZKDKKDOPDZDEGPERNETBEURFJDFKPGBPGELGHS" +
		"GIPGMDGTQGYDHKDHNLHTGHUFIDRILSINRIRRJMDKESKGSKHRKPWKYDKZTLAKLBPLKRLRDLSL" +
		"MADMDLMGAMKDMMKMNTMOPMRUMURMVRMWKMXNMXVMYRMZNNADNGNNIONOKNPRNZDPABPENPGK" +
		"PHPPKRPLNQARRONRSDRUBSARSBDSCRSDGSEKSGDSHPSLESOSSRDSSPSTNSVCSYPSZLTHBTJS" +
		"TMTTOPTRYTTDTWDTZSUAHUSDUSNUYUUZSVEDVESWSTXADXCDXCGYERZARZMWZWG"
	decimals3 = "BHDIQDJODKWDLYDOMRTND"
	decimals4 = "CLFUYW"
)

type currency struct {
	code     string
	exponent int
}

var (
	currencies []currency
	// currencyAt finds a code without hashing: the letters, read as a number
	// of base 26, lead to its index in currencies plus one; 0 is no currency.
	currencyAt [26 * 26 * 26]uint8
)

func init() {
	for exponent, codes := range []string{0: decimals0, 2: decimals2, 3: decimals3, 4: decimals4} {
		for ; codes != ""; codes = codes[3:] {
			currencies = append(currencies, currency{codes[:3], exponent})
			currencyAt[letters(codes[0], codes[1], codes[2])] = uint8(len(currencies))
		}
	}
}

func letters(a, b, c byte) int {
	return (int(a-'A')*26+int(b-'A'))*26 + int(c-'A')
}

// findCurrency answers the code as a string that is shared by all events.
func findCurrency[T string | []byte](code T) (currency, bool) {
	if len(code) != 3 {
		return currency{}, false
	}
	for i := range 3 {
		if c := code[i]; c < 'A' || c > 'Z' {
			return currency{}, false
		}
	}
	i := currencyAt[letters(code[0], code[1], code[2])]
	if i == 0 {
		return currency{}, false
	}
	return currencies[i-1], true
}

// Exponent is the number of decimals of an active ISO 4217 currency, given in
// upper case: 2 for EUR (a minor unit is a cent), 0 for JPY, 3 for KWD.
func Exponent(currency string) (int, bool) {
	c, ok := findCurrency(currency)
	return c.exponent, ok
}
