package redact

import (
	"strconv"
	"strings"
)

// digits are the ASCII digits of s.
func digits(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if isDigit(s[i]) {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// luhn is the check of ISO/IEC 7812 for cards and some national ids.
func luhn(d string) bool {
	sum := 0
	for i := range len(d) {
		n := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0
}

// cardLength says whether an issuer gives out numbers that begin and are as
// long as d. Maestro's may have any length from 12 on: sure is false for them,
// and something else must say that it is a card.
func cardLength(d string) (ok, sure bool) {
	n := len(d)
	two, four := number(d[:2]), number(d[:4])
	switch {
	case d[0] == '4':
		return n == 13 || n == 16 || n == 19, n == 16
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720:
		return n == 16, true
	case two == 34 || two == 37, four == 1800 || four == 2131:
		return n == 15, true
	case two == 36 || two == 38 || two == 39 || four >= 3000 && four <= 3059:
		return n == 14 || n == 16, n == 14
	case four >= 3528 && four <= 3589:
		return n == 16, true
	case two >= 60 && two <= 69:
		return n >= 12 && n <= 19, n == 16
	case two == 50 || two >= 56 && two <= 58:
		return n >= 12 && n <= 19, n == 16
	}
	return false, false
}

func number(d string) int {
	n, err := strconv.Atoi(d)
	if err != nil {
		return -1
	}
	return n
}

// ibanLengths are those of the countries in the IBAN registry.
const ibanLengths = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27" +
	"GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27" +
	"MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30"

// iban checks the length for the country and the check digits (ISO 7064,
// mod 97). s is in upper case, without spaces.
func iban(s string) bool {
	if len(s) < 15 || len(s) != ibanLength(s[:2]) {
		return false
	}
	rest := 0
	for i := range len(s) {
		c := s[(i+4)%len(s)]
		switch {
		case isDigit(c):
			rest = (rest*10 + int(c-'0')) % 97
		case c >= 'A' && c <= 'Z':
			rest = (rest*100 + int(c-'A') + 10) % 97
		default:
			return false
		}
	}
	return rest == 1
}

func ibanLength(country string) int {
	for i := 0; i < len(ibanLengths); i += 4 {
		if ibanLengths[i:i+2] == country {
			return number(ibanLengths[i+2 : i+4])
		}
	}
	return 0
}

// date says whether year (two digits), month and day can be a day.
func date(yy, mm, dd string) bool {
	m, d := number(mm), number(dd)
	return number(yy) >= 0 && m >= 1 && m <= 12 && d >= 1 && d <= 31
}

// weighted is the sum of the digits times their weights.
func weighted(d string, weights ...int) int {
	sum := 0
	for i, w := range weights {
		sum += int(d[i]-'0') * w
	}
	return sum
}

// nationalID says whether s is a national id by its form and its check digits.
// named says that the words before it call it one, which those need that other
// numbers are easily taken for.
func nationalID(s string, named bool) bool {
	d := digits(s)
	shape := shapeOf(s)
	switch shape {
	case "ddd-dd-dddd": // United States, SSN
		return ssn(d)
	case "ddd.ddd.ddd-dd", "ddd.ddd.ddd.dd": // Brazil, CPF
		return cpf(d)
	case "dd.dd.dd-ddd.dd": // Belgium
		return belgian(d)
	case "dddddd-dddd", "dddddd+dddd": // Sweden; Denmark's has no check digit
		return date(d[:2], d[2:4], d[4:6]) && luhn(d) || named && date(d[4:6], d[2:4], d[:2])
	case "dddddddd-dddd": // Sweden, with the century
		return date(d[2:4], d[4:6], d[6:8]) && luhn(d[2:])
	case "dddd dddd dddd", "dddd-dddd-dddd": // India, Aadhaar
		return d[0] > '1' && verhoeff(d)
	case "dd.ddd.ddd-d", "d.ddd.ddd-d": // Chile, RUT
		return rut(d)
	case "ddddddddL", "dddddddd-L": // Spain, DNI
		return dni(d, s[len(s)-1])
	case "LdddddddL", "L-ddddddd-L": // Spain, NIE
		i := strings.IndexByte("XYZ", s[0])
		return i >= 0 && dni(string(rune('0'+i))+d, s[len(s)-1])
	case "LLddddddL", "LL dd dd dd L": // United Kingdom, NINO
		return strings.IndexByte("DFIQUV", s[0]) < 0 && strings.IndexByte("DFIOQUV", s[1]) < 0 && s[len(s)-1] <= 'D' &&
			!strings.Contains("BG GB KN NK NT TN ZZ", s[:2])
	case "LLLLLLddLddLdddL": // Italy, codice fiscale
		return codiceFiscale(s)
	case "dddddd-dddL", "ddddddLdddL": // Finland
		return date(d[4:6], d[2:4], d[:2]) && "0123456789ABCDEFHJKLMNPRSTUVWXY"[number(d)%31] == s[len(s)-1]
	}
	if len(d) != len(s) && strings.Trim(shape, "d ") != "" {
		return false
	}
	switch len(d) {
	case 15: // France, NIR with its key
		return (d[0] == '1' || d[0] == '2') && date("00", d[3:5], "01") && 97-number(d[:13])%97 == number(d[13:])
	case 12:
		return named && d[0] > '1' && verhoeff(d)
	case 11:
		// Norway's two check digits and date leave one number in 4,000.
		norway := date(d[4:6], d[2:4], d[:2]) && weighted(d, 3, 7, 6, 1, 8, 9, 4, 5, 2, 1)%11 == 0 && weighted(d, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)%11 == 0
		poland := weighted(d, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)%10 == 0 && number(d[4:6]) >= 1 && number(d[4:6]) <= 31
		return norway || named && (poland || cpf(d) || belgian(d) || germanTax(d))
	case 10:
		return named && date(d[:2], d[2:4], d[4:6]) && luhn(d)
	case 9:
		dutch := (weighted(d, 9, 8, 7, 6, 5, 4, 3, 2)-int(d[8]-'0'))%11 == 0
		return named && (ssn(d) || dutch || luhn(d))
	}
	return false
}

func ssn(d string) bool {
	area := d[:3]
	return area != "000" && area != "666" && area < "900" && d[3:5] != "00" && d[5:] != "0000"
}

func cpf(d string) bool {
	if strings.Count(d, d[:1]) == len(d) {
		return false
	}
	check := func(n, weights int) bool { return n*10%11%10 == weights }
	return check(weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2), int(d[9]-'0')) && check(weighted(d, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2), int(d[10]-'0'))
}

func belgian(d string) bool {
	n, check := number(d[:9]), number(d[9:])
	return date(d[:2], d[2:4], d[4:6]) && (97-n%97 == check || 97-(2_000_000_000+n)%97 == check)
}

func rut(d string) bool {
	sum, weight := 0, 2
	for i := len(d) - 2; i >= 0; i-- {
		sum += int(d[i]-'0') * weight
		if weight++; weight > 7 {
			weight = 2
		}
	}
	return (11-sum%11)%11 == int(d[len(d)-1]-'0')
}

func dni(d string, letter byte) bool { return "TRWAGMYFPDXBNJZSQVHLCKE"[number(d)%23] == letter }

func germanTax(d string) bool {
	product := 10
	for i := range 10 {
		sum := (int(d[i]-'0') + product) % 10
		if sum == 0 {
			sum = 10
		}
		product = sum * 2 % 11
	}
	return d[0] != '0' && (11-product)%10 == int(d[10]-'0')
}

func codiceFiscale(s string) bool {
	odd := [36]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}
	sum := 0
	for i := range 15 {
		v := int(s[i] - '0')
		if !isDigit(s[i]) {
			v = int(s[i]-'A') + 10
		}
		switch {
		case i%2 == 0:
			sum += odd[v]
		case isDigit(s[i]):
			sum += v
		default:
			sum += v - 10
		}
	}
	return strings.IndexByte("ABCDEHLMPRST", s[8]) >= 0 && byte(sum%26)+'A' == s[15]
}

// verhoeff is the check of India's Aadhaar numbers.
func verhoeff(d string) bool {
	// The dihedral group of order 10: its product, and the permutation, by rule
	// instead of by table.
	mul := func(a, b int) int {
		switch {
		case a < 5 && b < 5:
			return (a + b) % 5
		case a < 5:
			return 5 + (a+b-5)%5
		case b < 5:
			return 5 + (a-5-b+5)%5
		default:
			return (a - b + 5) % 5
		}
	}
	permute := [10]int{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}
	c := 0
	for i := range len(d) {
		v := int(d[len(d)-1-i] - '0')
		for range i % 8 {
			v = permute[v]
		}
		c = mul(c, v)
	}
	return c == 0
}

// shapeOf is s with d for digits and L for capitals.
func shapeOf(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case isDigit(c):
			b[i] = 'd'
		case c >= 'A' && c <= 'Z':
			b[i] = 'L'
		}
	}
	return string(b)
}
