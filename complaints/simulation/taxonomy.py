"""The bureau's product names in their three historical periods, with the issues that belong to them.

The names and the dates on which they changed are those of the public database.
"""

from collections.abc import Mapping
from datetime import date

__all__ = ["NEWEST_FROM", "SECOND_FROM", "UNMAPPED", "Category", "categories"]

SECOND_FROM = date(2017, 4, 24)
NEWEST_FROM = date(2023, 8, 25)

Category = tuple[str, str, str, str]
"""Product, sub-product, issue, sub-issue; an empty string if the bureau has none."""

_Products = tuple[tuple[str, tuple[str, ...]], ...]
_Issues = tuple[tuple[str, str], ...]

UNMAPPED: tuple[Category, ...] = (
    ("Digital asset custody", "Vault service", "Other", ""),
    ("Crowdfunding platform", "", "Problem with customer service", ""),
)
"""Products that are in no taxonomy."""

_BANK = ("Checking account", "Savings account", "Other banking product or service", "CD (Certificate of Deposit)")
_CREDIT_CARDS = (
    "General-purpose credit card or charge card",
    "General-purpose credit card or charge card",
    "Store credit card",
)
_PREPAID = ("General-purpose prepaid card", "Government benefit card", "Gift card", "Payroll card")
_REPORTS = ("Credit reporting", "Credit reporting", "Credit reporting", "Other personal consumer report")
_MORTGAGES = (
    "Conventional home mortgage",
    "FHA mortgage",
    "VA mortgage",
    "Home equity loan or line of credit (HELOC)",
    "Reverse mortgage",
)
_STUDENT = ("Federal student loan servicing", "Private student loan")
_VEHICLE = ("Loan", "Lease")
_TRANSFERS = (
    "Mobile or digital wallet",
    "Domestic (US) money transfer",
    "International money transfer",
    "Virtual currency",
)
_CARD = "Credit card or prepaid card"
_REPORTING = "Credit reporting, credit repair services, or other personal consumer reports"
_TRANSFER = "Money transfer, virtual currency, or money service"

_OLDEST: Mapping[str, _Products] = {
    "bank_account": (
        ("Bank account or service", ("Checking account", "Savings account", "(CD) Certificate of deposit")),
    ),
    "cards": (
        ("Credit card", ("",)),
        ("Credit card", ("",)),
        ("Prepaid card", ("General purpose card", "Gift or merchant card", "Mobile wallet")),
    ),
    "consumer_loan": (
        ("Consumer Loan", ("Vehicle loan", "Vehicle lease", "Installment loan", "Personal line of credit")),
        ("Payday loan", ("", "Payday loan")),
    ),
    "credit_reporting": (("Credit reporting", ("",)),),
    "debt_collection": (
        (
            "Debt collection",
            ("Other (i.e. phone, health club, etc.)", "I do not know", "Medical", "Credit card", "Payday loan", "Auto"),
        ),
    ),
    "money_transfer": (
        ("Money transfers", ("Domestic (US) money transfer", "International money transfer")),
        ("Virtual currency", ("Domestic (US) money transfer", "")),
    ),
    "mortgage": (
        (
            "Mortgage",
            (
                "Other mortgage",
                "Conventional fixed mortgage",
                "Conventional adjustable mortgage (ARM)",
                "FHA mortgage",
                "VA mortgage",
            ),
        ),
    ),
    "other": (("Other financial service", ("Credit repair", "Debt settlement", "Money order")),),
    "student_loan": (("Student loan", ("Non-federal student loan", "Federal student loan servicing")),),
}

_SECOND: Mapping[str, _Products] = {
    "bank_account": (("Checking or savings account", _BANK),),
    "cards": ((_CARD, _CREDIT_CARDS), (_CARD, _CREDIT_CARDS), (_CARD, _PREPAID)),
    "consumer_loan": (
        ("Payday loan, title loan, or personal loan", ("Installment loan", "Personal line of credit", "Payday loan")),
        ("Vehicle loan or lease", _VEHICLE),
    ),
    "credit_reporting": ((_REPORTING, _REPORTS),),
    "debt_collection": (
        (
            "Debt collection",
            ("Other debt", "I do not know", "Credit card debt", "Medical debt", "Auto debt", "Payday loan debt"),
        ),
    ),
    "money_transfer": ((_TRANSFER, _TRANSFERS),),
    "mortgage": (("Mortgage", (*_MORTGAGES, "Other type of mortgage")),),
    # In this period the bureau had no separate product for debt or credit management.
    "other": ((_REPORTING, ("Credit repair services",)), (_TRANSFER, ("Debt settlement",))),
    "student_loan": (("Student loan", _STUDENT),),
}

_NEWEST: Mapping[str, _Products] = {
    "bank_account": (("Checking or savings account", _BANK),),
    "cards": (("Credit card", _CREDIT_CARDS), ("Credit card", _CREDIT_CARDS), ("Prepaid card", _PREPAID)),
    "consumer_loan": (
        (
            "Payday loan, title loan, personal loan, or advance loan",
            ("Installment loan", "Payday loan", "Personal line of credit", "Title loan", "Earned wage access"),
        ),
        ("Vehicle loan or lease", _VEHICLE),
    ),
    "credit_reporting": (("Credit reporting or other personal consumer reports", _REPORTS),),
    "debt_collection": (
        (
            "Debt collection",
            (
                "I do not know",
                "Credit card debt",
                "Other debt",
                "Medical debt",
                "Telecommunications debt",
                "Rental debt",
            ),
        ),
    ),
    "money_transfer": ((_TRANSFER, (*_TRANSFERS, "Money order, traveler's check or cashier's check")),),
    "mortgage": (("Mortgage", (*_MORTGAGES, "USDA mortgage", "Manufactured home loan")),),
    "other": (
        (
            "Debt or credit management",
            ("Debt settlement", "Credit repair services", "Mortgage modification or foreclosure avoidance"),
        ),
    ),
    "student_loan": (("Student loan", _STUDENT),),
}

_OLD_ISSUES: Mapping[str, _Issues] = {
    "bank_account": (("Account opening, closing, or management", ""), ("Deposits and withdrawals", "")),
    "cards": (("Billing disputes", ""), ("APR or interest rate", ""), ("Closing/Cancelling account", "")),
    "consumer_loan": (("Managing the loan or lease", ""), ("Problems when you are unable to pay", "")),
    "credit_reporting": (
        ("Incorrect information on credit report", "Information is not mine"),
        ("Incorrect information on credit report", "Account status"),
    ),
    "debt_collection": (
        ("Cont'd attempts collect debt not owed", "Debt is not mine"),
        ("Communication tactics", "Frequent or repeated calls"),
    ),
    "money_transfer": (("Money was not available when promised", ""), ("Fraud or scam", "")),
    "mortgage": (
        ("Loan modification,collection,foreclosure", ""),
        ("Loan servicing, payments, escrow account", ""),
    ),
    "other": (("Excessive fees", ""), ("Fraud or scam", "")),
    "student_loan": (("Dealing with my lender or servicer", "Trouble with how payments are handled"),),
}

_NEW_ISSUES: Mapping[str, _Issues] = {
    "bank_account": (
        ("Managing an account", "Deposits and withdrawals"),
        ("Closing an account", "Company closed your account"),
        ("Opening an account", "Unable to open an account"),
    ),
    "cards": (
        ("Fees or interest", "Problem with fees"),
        ("Problem with a purchase shown on your statement", "Card was charged for something you did not purchase"),
        ("Getting a credit card", "Application denied"),
    ),
    "consumer_loan": (
        ("Charged fees or interest you didn't expect", ""),
        ("Managing the loan or lease", "Billing problem"),
        ("Struggling to pay your loan", ""),
    ),
    "credit_reporting": (
        ("Incorrect information on your report", "Information belongs to someone else"),
        ("Improper use of your report", "Reporting company used your report improperly"),
        (
            "Problem with a company's investigation into an existing problem",
            "Their investigation did not fix an error on your report",
        ),
    ),
    "debt_collection": (
        ("Attempts to collect debt not owed", "Debt is not yours"),
        ("Written notification about debt", "Didn't receive enough information to verify debt"),
        ("Communication tactics", "Frequent or repeated calls"),
    ),
    "money_transfer": (
        ("Fraud or scam", ""),
        ("Other transaction problem", ""),
        ("Money was not available when promised", ""),
    ),
    "mortgage": (
        ("Trouble during payment process", "Escrow, taxes, or insurance"),
        ("Struggling to pay mortgage", ""),
        ("Closing on a mortgage", ""),
    ),
    "other": (("Didn't provide services promised", ""), ("Charged upfront or unexpected fees", "")),
    "student_loan": (
        ("Dealing with your lender or servicer", "Trouble with how payments are being handled"),
        ("Struggling to repay your loan", "Problem with your payment plan"),
    ),
}


def categories(queue: str, day: date, newest_from: date = NEWEST_FROM) -> tuple[Category, ...]:
    """The categories under which a queue's complaints are filed on a day, all equally likely."""
    if day >= newest_from:
        return _PERIODS["newest"][queue]
    return _PERIODS["second" if day >= SECOND_FROM else "oldest"][queue]


def _expand(products: _Products, issues: _Issues) -> tuple[Category, ...]:
    return tuple(
        (product, sub_product, issue, sub_issue)
        for product, sub_products in products
        for sub_product in sub_products
        for issue, sub_issue in issues
    )


_PERIODS: Mapping[str, Mapping[str, tuple[Category, ...]]] = {
    name: {queue: _expand(products, issues[queue]) for queue, products in taxonomy.items()}
    for name, taxonomy, issues in (
        ("oldest", _OLDEST, _OLD_ISSUES),
        ("second", _SECOND, _NEW_ISSUES),
        ("newest", _NEWEST, _NEW_ISSUES),
    )
}
