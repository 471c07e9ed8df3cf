package redact

import "strings"

// Lists of words in lower case, our own.
const (
	countries = "afghanistan,albania,algeria,andorra,angola,argentina,armenia,australia,austria,azerbaijan,bahamas,bahrain,bangladesh,barbados,belarus," +
		"belgium,belize,benin,bhutan,bolivia,bosnia,bosnia and herzegovina,botswana,brazil,brasil,brunei,bulgaria,burkina faso,burundi,cambodia,cameroon,canada," +
		"cape verde,chad,chile,china,colombia,congo,costa rica,croatia,cuba,cyprus,czech republic,czechia,denmark,djibouti,dominica,dominican republic,ecuador," +
		"egypt,el salvador,england,eritrea,estonia,eswatini,ethiopia,fiji,finland,france,gabon,gambia,georgia,germany,deutschland,ghana,greece,greenland,grenada," +
		"guatemala,guinea,guyana,haiti,honduras,hong kong,hungary,iceland,india,indonesia,iran,iraq,ireland,israel,italy,italia,ivory coast,jamaica,japan,jordan," +
		"kazakhstan,kenya,kiribati,kosovo,kuwait,kyrgyzstan,laos,latvia,lebanon,lesotho,liberia,libya,liechtenstein,lithuania,luxembourg,macau,madagascar,malawi," +
		"malaysia,maldives,mali,malta,mauritania,mauritius,mexico,micronesia,moldova,monaco,mongolia,montenegro,morocco,mozambique,myanmar,namibia,nauru,nepal," +
		"netherlands,the netherlands,holland,new zealand,nicaragua,niger,nigeria,north korea,north macedonia,macedonia,northern ireland,norway,oman,pakistan,palau," +
		"palestine,panama,papua new guinea,paraguay,peru,philippines,poland,portugal,puerto rico,qatar,romania,russia,russian federation,rwanda,samoa,san marino," +
		"saudi arabia,scotland,senegal,serbia,seychelles,sierra leone,singapore,slovakia,slovenia,solomon islands,somalia,south africa,south korea,south sudan,spain," +
		"sri lanka,sudan,suriname,sweden,switzerland,syria,taiwan,tajikistan,tanzania,thailand,togo,tonga,trinidad and tobago,tunisia,turkey,turkmenistan,tuvalu," +
		"uganda,ukraine,united arab emirates,uae,united kingdom,uk,great britain,united states,united states of america,usa,us,u.s,uruguay,uzbekistan,vanuatu," +
		"vatican,venezuela,vietnam,wales,yemen,zambia,zimbabwe,europe,africa,asia,america,north america,south america,latin america,middle east,antarctica,oceania,eu"

	nationalityWords = "afghan albanian algerian american andorran angolan argentine argentinian armenian asian australian austrian azerbaijani bahamian bangladeshi " +
		"belarusian belgian belizean belizian bolivian bosnian brazilian british bruneian bulgarian burmese cambodian cameroonian canadian catalan catholic chechen chilean " +
		"chinese christian colombian congolese croatian cuban cypriot czech danish dominican dutch ecuadorian ecuadorean egyptian english eritrean estonian ethiopian european " +
		"fijian filipino finnish flemish french gambian georgian german ghanaian greek guatemalan guinean haitian hindu honduran hungarian icelandic indian " +
		"indonesian iranian iraqi irish islamic israeli italian jamaican japanese jewish jordanian kazakh kenyan korean kosovar kurdish kuwaiti laotian latvian lebanese " +
		"liberian libyan lithuanian luxembourgish macedonian malagasy malaysian maltese mauritian mexican moldovan mongolian montenegrin moroccan muslim namibian nepalese " +
		"nicaraguan nigerian norwegian omani pakistani palestinian panamanian paraguayan peruvian polish portuguese qatari romanian russian rwandan salvadoran saudi scottish " +
		"senegalese serbian shia singaporean slovak slovenian somali spanish sudanese sunni surinamese swedish swiss syrian taiwanese tajik tanzanian thai tibetan tunisian " +
		"turkish turkmen ugandan ukrainian uruguayan uzbek venezuelan vietnamese welsh yemeni zambian zimbabwean " +
		"americans germans italians russians canadians australians mexicans saudis bruneians paraguayans ecuadoreans cambodians shiis surinameses englishmans"

	streetWords = "street st avenue ave road rd lane ln drive dr boulevard blvd court ct square sq place pl way highway hwy parkway terrace close crescent walk row " +
		"apt apartment suite unit floor flat room building bldg box po strasse straße str platz weg allee gasse rue chemin impasse quai via viale corso piazza calle " +
		"avenida plaza paseo carrer rua travessa praca praça estrada alameda ulica ul plac aleja utca ter korut gata gatan vagen vägen vej vejen gade katu tie kuja " +
		"straat laan weg plein dijk gracht kade psc apo fpo dpo ulice namesti náměstí trida třída"

	titleWords = "mr mrs ms miss mx dr prof professor sir madam dame lord lady herr frau monsieur madame señor señora signor signora hr fr president senator judge " +
		"captain engineer manager director nurse teacher technician clerk officer assistant designer scientist accountant specialist operator administrator consultant"

	companyWords = "inc llc ltd corp corporation company co gmbh ag sa srl bv nv plc group holdings partners associates technologies solutions systems services software " +
		"labs analytics bank insurance university institute foundation capital research consulting media networks"

	// commonWords begin sentences and head lists in capitals, and are no names.
	commonWords = "i a an the this that these those my your his her its our their we you he she it they who what when where why how which is are was were do does did " +
		"can could will would should may might must have has had not no yes please thanks thank hi hello hey dear if in on at to from for with by of and or but so as than " +
		"then there here now today tomorrow yesterday some any all each every more most other another new old good great just only also very too about after before " +
		"let make use using need want get give go see try help tell show write create add find explain describe list note step example question answer first second " +
		"third next last finally however therefore because since while until although both either neither one two three four five six seven eight nine ten sorry " +
		"return refund order account card payment transfer bank app top atm pin visa mastercard apple google pay error api http json sql html css id url ok faq sir god ticket issue invoice chapter step title section traceback exception warning debug fatal"
)

const weekdayWords = "monday tuesday wednesday thursday friday saturday sunday mondays tuesdays wednesdays thursdays fridays saturdays sundays"

// manyWords begin the countries of several words.
func manyWords() string {
	var out []string
	for _, c := range strings.Split(countries, ",") {
		if first, _, found := strings.Cut(c, " "); found {
			out = append(out, first)
		}
	}
	return strings.Join(out, " ")
}

// countryWords are the words of one-word countries.
var countryWords = strings.Join(singles(), " ")

func singles() []string {
	var out []string
	for _, c := range strings.Split(countries, ",") {
		if !strings.Contains(c, " ") {
			out = append(out, c)
		}
	}
	return out
}

// IsCountry says whether s is a country, a continent or a part of one.
func IsCountry(s string) bool {
	return strings.Contains(","+countries+",", ","+strings.ToLower(strings.Join(strings.Fields(s), " "))+",")
}
